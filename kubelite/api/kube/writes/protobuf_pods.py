"""The messages of a pod, as in `protobuf_messages.py`: all that core/v1 of Kubernetes 1.37 has."""

TABLE = """
Pod metadata=1:ObjectMeta spec=2:PodSpec status=3:PodStatus
PodSpec volumes=1:*Volume containers=2:*Container restartPolicy=3:str terminationGracePeriodSeconds=4:int?
PodSpec activeDeadlineSeconds=5:int? dnsPolicy=6:str nodeSelector=7:@str serviceAccountName=8:str serviceAccount=9:str
PodSpec nodeName=10:str hostNetwork=11:bool hostPID=12:bool hostIPC=13:bool securityContext=14:PodSecurityContext
PodSpec imagePullSecrets=15:*LocalObjectReference hostname=16:str subdomain=17:str affinity=18:Affinity
PodSpec schedulerName=19:str initContainers=20:*Container automountServiceAccountToken=21:bool?
PodSpec tolerations=22:*Toleration hostAliases=23:*HostAlias priorityClassName=24:str priority=25:int?
PodSpec dnsConfig=26:PodDNSConfig shareProcessNamespace=27:bool? readinessGates=28:*PodReadinessGate
PodSpec runtimeClassName=29:str? enableServiceLinks=30:bool? preemptionPolicy=31:str? overhead=32:@quantity
PodSpec topologySpreadConstraints=33:*TopologySpreadConstraint ephemeralContainers=34:*EphemeralContainer
PodSpec setHostnameAsFQDN=35:bool? os=36:PodOS hostUsers=37:bool? schedulingGates=38:*PodSchedulingGate
PodSpec resourceClaims=39:*PodResourceClaim resources=40:ResourceRequirements hostnameOverride=41:str?
PodSpec schedulingGroup=43:PodSchedulingGroup evictionResponders=44:*EvictionResponder
PodStatus phase=1:str conditions=2:*PodCondition message=3:str reason=4:str hostIP=5:str podIP=6:str startTime=7:time?
PodStatus containerStatuses=8:*ContainerStatus qosClass=9:str initContainerStatuses=10:*ContainerStatus
PodStatus nominatedNodeName=11:str podIPs=12:*PodIP ephemeralContainerStatuses=13:*ContainerStatus resize=14:str
PodStatus resourceClaimStatuses=15:*PodResourceClaimStatus hostIPs=16:*HostIP observedGeneration=17:int
PodStatus extendedResourceClaimStatus=18:PodExtendedResourceClaimStatus allocatedResources=19:@quantity
PodStatus resources=20:ResourceRequirements
PodStatus nodeAllocatableResourceClaimStatuses=21:*NodeAllocatableResourceClaimStatus volumeHealth=22:*PodVolumeHealth
Volume name=1:str VolumeSource=2:^VolumeSource
Container name=1:str image=2:str command=3:*str args=4:*str workingDir=5:str ports=6:*ContainerPort env=7:*EnvVar
Container resources=8:ResourceRequirements volumeMounts=9:*VolumeMount livenessProbe=10:Probe readinessProbe=11:Probe
Container lifecycle=12:Lifecycle terminationMessagePath=13:str imagePullPolicy=14:str
Container securityContext=15:SecurityContext stdin=16:bool stdinOnce=17:bool tty=18:bool envFrom=19:*EnvFromSource
Container terminationMessagePolicy=20:str volumeDevices=21:*VolumeDevice startupProbe=22:Probe
Container resizePolicy=23:*ContainerResizePolicy restartPolicy=24:str? restartPolicyRules=25:*ContainerRestartRule
PodSecurityContext seLinuxOptions=1:SELinuxOptions runAsUser=2:int? runAsNonRoot=3:bool? supplementalGroups=4:*int
PodSecurityContext fsGroup=5:int? runAsGroup=6:int? sysctls=7:*Sysctl windowsOptions=8:WindowsSecurityContextOptions
PodSecurityContext fsGroupChangePolicy=9:str? seccompProfile=10:SeccompProfile appArmorProfile=11:AppArmorProfile
PodSecurityContext supplementalGroupsPolicy=12:str? seLinuxChangePolicy=13:str?
LocalObjectReference name=1:str
Affinity nodeAffinity=1:NodeAffinity podAffinity=2:PodAffinity podAntiAffinity=3:PodAntiAffinity
Toleration key=1:str operator=2:str value=3:str effect=4:str tolerationSeconds=5:int?
HostAlias ip=1:str hostnames=2:*str
PodDNSConfig nameservers=1:*str searches=2:*str options=3:*PodDNSConfigOption
PodReadinessGate conditionType=1:str
TopologySpreadConstraint maxSkew=1:int topologyKey=2:str whenUnsatisfiable=3:str labelSelector=4:LabelSelector
TopologySpreadConstraint minDomains=5:int? nodeAffinityPolicy=6:str? nodeTaintsPolicy=7:str? matchLabelKeys=8:*str
EphemeralContainer EphemeralContainerCommon=1:^EphemeralContainerCommon targetContainerName=2:str
PodOS name=1:str
PodSchedulingGate name=1:str
PodResourceClaim name=1:str resourceClaimName=3:str? resourceClaimTemplateName=4:str?
ResourceRequirements limits=1:@quantity requests=2:@quantity claims=3:*ResourceClaim
PodSchedulingGroup podGroupName=1:str?
EvictionResponder name=1:str priority=2:int?
PodCondition type=1:str status=2:str lastProbeTime=3:time lastTransitionTime=4:time reason=5:str message=6:str
PodCondition observedGeneration=7:int
ContainerStatus name=1:str state=2:ContainerState lastState=3:ContainerState ready=4:bool restartCount=5:int
ContainerStatus image=6:str imageID=7:str containerID=8:str started=9:bool? allocatedResources=10:@quantity
ContainerStatus resources=11:ResourceRequirements volumeMounts=12:*VolumeMountStatus user=13:ContainerUser
ContainerStatus allocatedResourcesStatus=14:*ResourceStatus stopSignal=15:str?
PodIP ip=1:str
PodResourceClaimStatus name=1:str resourceClaimName=2:str?
HostIP ip=1:str
PodExtendedResourceClaimStatus requestMappings=1:*ContainerExtendedResourceRequest resourceClaimName=2:str
NodeAllocatableResourceClaimStatus resourceClaimName=1:str containers=2:*str mapping=4:*NodeAllocatableMappedResources
NodeAllocatableResourceClaimStatus overhead=5:*NodeAllocatableOverheadResources
PodVolumeHealth name=1:str healthConditions=2:*VolumeHealthCondition lastTransitionTime=3:time
VolumeSource hostPath=1:HostPathVolumeSource emptyDir=2:EmptyDirVolumeSource
VolumeSource gcePersistentDisk=3:GCEPersistentDiskVolumeSource awsElasticBlockStore=4:AWSElasticBlockStoreVolumeSource
VolumeSource gitRepo=5:GitRepoVolumeSource secret=6:SecretVolumeSource nfs=7:NFSVolumeSource iscsi=8:ISCSIVolumeSource
VolumeSource glusterfs=9:GlusterfsVolumeSource persistentVolumeClaim=10:PersistentVolumeClaimVolumeSource
VolumeSource rbd=11:RBDVolumeSource flexVolume=12:FlexVolumeSource cinder=13:CinderVolumeSource
VolumeSource cephfs=14:CephFSVolumeSource flocker=15:FlockerVolumeSource downwardAPI=16:DownwardAPIVolumeSource
VolumeSource fc=17:FCVolumeSource azureFile=18:AzureFileVolumeSource configMap=19:ConfigMapVolumeSource
VolumeSource vsphereVolume=20:VsphereVirtualDiskVolumeSource quobyte=21:QuobyteVolumeSource
VolumeSource azureDisk=22:AzureDiskVolumeSource photonPersistentDisk=23:PhotonPersistentDiskVolumeSource
VolumeSource portworxVolume=24:PortworxVolumeSource scaleIO=25:ScaleIOVolumeSource projected=26:ProjectedVolumeSource
VolumeSource storageos=27:StorageOSVolumeSource csi=28:CSIVolumeSource ephemeral=29:EphemeralVolumeSource
VolumeSource image=30:ImageVolumeSource
ContainerPort name=1:str hostPort=2:int containerPort=3:int protocol=4:str hostIP=5:str
EnvVar name=1:str value=2:str valueFrom=3:EnvVarSource
VolumeMount name=1:str readOnly=2:bool mountPath=3:str subPath=4:str mountPropagation=5:str? subPathExpr=6:str
VolumeMount recursiveReadOnly=7:str? bindMountOptions=8:*str
Probe ProbeHandler=1:^ProbeHandler initialDelaySeconds=2:int timeoutSeconds=3:int periodSeconds=4:int
Probe successThreshold=5:int failureThreshold=6:int terminationGracePeriodSeconds=7:int?
Lifecycle postStart=1:LifecycleHandler preStop=2:LifecycleHandler stopSignal=3:str?
SecurityContext capabilities=1:Capabilities privileged=2:bool? seLinuxOptions=3:SELinuxOptions runAsUser=4:int?
SecurityContext runAsNonRoot=5:bool? readOnlyRootFilesystem=6:bool? allowPrivilegeEscalation=7:bool? runAsGroup=8:int?
SecurityContext procMount=9:str? windowsOptions=10:WindowsSecurityContextOptions seccompProfile=11:SeccompProfile
SecurityContext appArmorProfile=12:AppArmorProfile
EnvFromSource prefix=1:str configMapRef=2:ConfigMapEnvSource secretRef=3:SecretEnvSource
VolumeDevice name=1:str devicePath=2:str
ContainerResizePolicy resourceName=1:str restartPolicy=2:str
ContainerRestartRule action=1:str exitCodes=2:ContainerRestartRuleOnExitCodes
SELinuxOptions user=1:str role=2:str type=3:str level=4:str
Sysctl name=1:str value=2:str
WindowsSecurityContextOptions gmsaCredentialSpecName=1:str? gmsaCredentialSpec=2:str? runAsUserName=3:str?
WindowsSecurityContextOptions hostProcess=4:bool?
SeccompProfile type=1:str localhostProfile=2:str?
AppArmorProfile type=1:str localhostProfile=2:str?
NodeAffinity requiredDuringSchedulingIgnoredDuringExecution=1:NodeSelector
NodeAffinity preferredDuringSchedulingIgnoredDuringExecution=2:*PreferredSchedulingTerm
PodAffinity requiredDuringSchedulingIgnoredDuringExecution=1:*PodAffinityTerm
PodAffinity preferredDuringSchedulingIgnoredDuringExecution=2:*WeightedPodAffinityTerm
PodAntiAffinity requiredDuringSchedulingIgnoredDuringExecution=1:*PodAffinityTerm
PodAntiAffinity preferredDuringSchedulingIgnoredDuringExecution=2:*WeightedPodAffinityTerm
PodDNSConfigOption name=1:str value=2:str?
EphemeralContainerCommon name=1:str image=2:str command=3:*str args=4:*str workingDir=5:str ports=6:*ContainerPort
EphemeralContainerCommon env=7:*EnvVar resources=8:ResourceRequirements volumeMounts=9:*VolumeMount
EphemeralContainerCommon livenessProbe=10:Probe readinessProbe=11:Probe lifecycle=12:Lifecycle
EphemeralContainerCommon terminationMessagePath=13:str imagePullPolicy=14:str securityContext=15:SecurityContext
EphemeralContainerCommon stdin=16:bool stdinOnce=17:bool tty=18:bool envFrom=19:*EnvFromSource
EphemeralContainerCommon terminationMessagePolicy=20:str volumeDevices=21:*VolumeDevice startupProbe=22:Probe
EphemeralContainerCommon resizePolicy=23:*ContainerResizePolicy restartPolicy=24:str?
EphemeralContainerCommon restartPolicyRules=25:*ContainerRestartRule
ResourceClaim name=1:str request=2:str
ContainerState waiting=1:ContainerStateWaiting running=2:ContainerStateRunning terminated=3:ContainerStateTerminated
VolumeMountStatus name=1:str mountPath=2:str readOnly=3:bool recursiveReadOnly=4:str? volumeStatus=5:VolumeStatus
ContainerUser linux=1:LinuxContainerUser
ResourceStatus name=1:str resources=2:*ResourceHealth
ContainerExtendedResourceRequest containerName=1:str resourceName=2:str requestName=3:str
NodeAllocatableMappedResources name=1:str quantity=2:quantity?
NodeAllocatableOverheadResources name=1:str perPod=2:quantity? perContainer=3:quantity?
VolumeHealthCondition status=1:str reason=2:str message=3:str
HostPathVolumeSource path=1:str type=2:str?
EmptyDirVolumeSource medium=1:str sizeLimit=2:quantity? mode=3:int?
GCEPersistentDiskVolumeSource pdName=1:str fsType=2:str partition=3:int readOnly=4:bool
AWSElasticBlockStoreVolumeSource volumeID=1:str fsType=2:str partition=3:int readOnly=4:bool
GitRepoVolumeSource repository=1:str revision=2:str directory=3:str
SecretVolumeSource secretName=1:str items=2:*KeyToPath defaultMode=3:int? optional=4:bool? defaultUser=5:int?
NFSVolumeSource server=1:str path=2:str readOnly=3:bool
ISCSIVolumeSource targetPortal=1:str iqn=2:str lun=3:int iscsiInterface=4:str fsType=5:str readOnly=6:bool
ISCSIVolumeSource portals=7:*str chapAuthDiscovery=8:bool secretRef=10:LocalObjectReference chapAuthSession=11:bool
ISCSIVolumeSource initiatorName=12:str?
GlusterfsVolumeSource endpoints=1:str path=2:str readOnly=3:bool
PersistentVolumeClaimVolumeSource claimName=1:str readOnly=2:bool
RBDVolumeSource monitors=1:*str image=2:str fsType=3:str pool=4:str user=5:str keyring=6:str
RBDVolumeSource secretRef=7:LocalObjectReference readOnly=8:bool
FlexVolumeSource driver=1:str fsType=2:str secretRef=3:LocalObjectReference readOnly=4:bool options=5:@str
CinderVolumeSource volumeID=1:str fsType=2:str readOnly=3:bool secretRef=4:LocalObjectReference
CephFSVolumeSource monitors=1:*str path=2:str user=3:str secretFile=4:str secretRef=5:LocalObjectReference
CephFSVolumeSource readOnly=6:bool
FlockerVolumeSource datasetName=1:str datasetUUID=2:str
DownwardAPIVolumeSource items=1:*DownwardAPIVolumeFile defaultMode=2:int? defaultUser=3:int?
FCVolumeSource targetWWNs=1:*str lun=2:int? fsType=3:str readOnly=4:bool wwids=5:*str
AzureFileVolumeSource secretName=1:str shareName=2:str readOnly=3:bool
ConfigMapVolumeSource LocalObjectReference=1:^LocalObjectReference items=2:*KeyToPath defaultMode=3:int?
ConfigMapVolumeSource optional=4:bool? defaultUser=5:int?
VsphereVirtualDiskVolumeSource volumePath=1:str fsType=2:str storagePolicyName=3:str storagePolicyID=4:str
QuobyteVolumeSource registry=1:str volume=2:str readOnly=3:bool user=4:str group=5:str tenant=6:str
AzureDiskVolumeSource diskName=1:str diskURI=2:str cachingMode=3:str? fsType=4:str? readOnly=5:bool? kind=6:str?
PhotonPersistentDiskVolumeSource pdID=1:str fsType=2:str
PortworxVolumeSource volumeID=1:str fsType=2:str readOnly=3:bool
ScaleIOVolumeSource gateway=1:str system=2:str secretRef=3:LocalObjectReference sslEnabled=4:bool
ScaleIOVolumeSource protectionDomain=5:str storagePool=6:str storageMode=7:str volumeName=8:str fsType=9:str
ScaleIOVolumeSource readOnly=10:bool
ProjectedVolumeSource sources=1:*VolumeProjection defaultMode=2:int? defaultUser=3:int?
StorageOSVolumeSource volumeName=1:str volumeNamespace=2:str fsType=3:str readOnly=4:bool
StorageOSVolumeSource secretRef=5:LocalObjectReference
CSIVolumeSource driver=1:str readOnly=2:bool? fsType=3:str? volumeAttributes=4:@str
CSIVolumeSource nodePublishSecretRef=5:LocalObjectReference
EphemeralVolumeSource volumeClaimTemplate=1:PersistentVolumeClaimTemplate
ImageVolumeSource reference=1:str pullPolicy=2:str
EnvVarSource fieldRef=1:ObjectFieldSelector resourceFieldRef=2:ResourceFieldSelector
EnvVarSource configMapKeyRef=3:ConfigMapKeySelector secretKeyRef=4:SecretKeySelector fileKeyRef=5:FileKeySelector
ProbeHandler exec=1:ExecAction httpGet=2:HTTPGetAction tcpSocket=3:TCPSocketAction grpc=4:GRPCAction
LifecycleHandler exec=1:ExecAction httpGet=2:HTTPGetAction tcpSocket=3:TCPSocketAction sleep=4:SleepAction
Capabilities add=1:*str drop=2:*str
ConfigMapEnvSource LocalObjectReference=1:^LocalObjectReference optional=2:bool?
SecretEnvSource LocalObjectReference=1:^LocalObjectReference optional=2:bool?
ContainerRestartRuleOnExitCodes operator=1:str values=2:*int
NodeSelector nodeSelectorTerms=1:*NodeSelectorTerm
PreferredSchedulingTerm weight=1:int preference=2:NodeSelectorTerm
PodAffinityTerm labelSelector=1:LabelSelector namespaces=2:*str topologyKey=3:str namespaceSelector=4:LabelSelector
PodAffinityTerm matchLabelKeys=5:*str mismatchLabelKeys=6:*str
WeightedPodAffinityTerm weight=1:int podAffinityTerm=2:PodAffinityTerm
ContainerStateWaiting reason=1:str message=2:str
ContainerStateRunning startedAt=1:time
ContainerStateTerminated exitCode=1:int signal=2:int reason=3:str message=4:str startedAt=5:time finishedAt=6:time
ContainerStateTerminated containerID=7:str
VolumeStatus image=1:ImageVolumeStatus
LinuxContainerUser uid=1:int gid=2:int supplementalGroups=3:*int
ResourceHealth resourceID=1:str health=2:str message=6:str?
KeyToPath key=1:str path=2:str mode=3:int? user=4:int?
DownwardAPIVolumeFile path=1:str fieldRef=2:ObjectFieldSelector resourceFieldRef=3:ResourceFieldSelector mode=4:int?
DownwardAPIVolumeFile user=5:int?
VolumeProjection secret=1:SecretProjection downwardAPI=2:DownwardAPIProjection configMap=3:ConfigMapProjection
VolumeProjection serviceAccountToken=4:ServiceAccountTokenProjection clusterTrustBundle=5:ClusterTrustBundleProjection
VolumeProjection podCertificate=6:PodCertificateProjection
PersistentVolumeClaimTemplate metadata=1:ObjectMeta spec=2:PersistentVolumeClaimSpec
ObjectFieldSelector apiVersion=1:str fieldPath=2:str
ResourceFieldSelector containerName=1:str resource=2:str divisor=3:quantity
ConfigMapKeySelector LocalObjectReference=1:^LocalObjectReference key=2:str optional=3:bool?
SecretKeySelector LocalObjectReference=1:^LocalObjectReference key=2:str optional=3:bool?
FileKeySelector volumeName=1:str path=2:str key=3:str optional=4:bool?
ExecAction command=1:*str
HTTPGetAction path=1:str port=2:intstr host=3:str scheme=4:str httpHeaders=5:*HTTPHeader protocol=6:str?
TCPSocketAction port=1:intstr host=2:str
GRPCAction port=1:int service=2:str? mode=3:str?
SleepAction seconds=1:int
NodeSelectorTerm matchExpressions=1:*NodeSelectorRequirement matchFields=2:*NodeSelectorRequirement
ImageVolumeStatus imageRef=1:str
SecretProjection LocalObjectReference=1:^LocalObjectReference items=2:*KeyToPath optional=4:bool?
DownwardAPIProjection items=1:*DownwardAPIVolumeFile
ConfigMapProjection LocalObjectReference=1:^LocalObjectReference items=2:*KeyToPath optional=4:bool?
ServiceAccountTokenProjection audience=1:str expirationSeconds=2:int? path=3:str user=4:int?
ClusterTrustBundleProjection name=1:str? signerName=2:str? labelSelector=3:LabelSelector path=4:str optional=5:bool?
ClusterTrustBundleProjection user=6:int?
PodCertificateProjection signerName=1:str keyType=2:str maxExpirationSeconds=3:int? credentialBundlePath=4:str
PodCertificateProjection keyPath=5:str certificateChainPath=6:str userAnnotations=7:@str user=8:int?
PersistentVolumeClaimSpec accessModes=1:*str resources=2:VolumeResourceRequirements volumeName=3:str
PersistentVolumeClaimSpec selector=4:LabelSelector storageClassName=5:str? volumeMode=6:str?
PersistentVolumeClaimSpec dataSource=7:TypedLocalObjectReference dataSourceRef=8:TypedObjectReference
PersistentVolumeClaimSpec volumeAttributesClassName=9:str?
HTTPHeader name=1:str value=2:str
NodeSelectorRequirement key=1:str operator=2:str values=3:*str
VolumeResourceRequirements limits=1:@quantity requests=2:@quantity
TypedObjectReference apiGroup=1:str? kind=2:str name=3:str namespace=4:str?
"""
