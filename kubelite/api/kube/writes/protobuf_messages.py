"""The messages that `protobuf.py` reads: NAME FIELD=NUMBER:KIND. `*`: a list, `@`: a map of strings to the kind, `?`: a
pointer in Go, which is sent only if it is set, `^`: a struct that is embedded in Go, whose fields are those of the
message in JSON. Field numbers: the generated.proto of each group version. The messages of a pod are in
`protobuf_pods.py`."""

TABLE = """
Unknown typeMeta=1:TypeMeta raw=2:bytes contentEncoding=3:str contentType=4:str
TypeMeta apiVersion=1:str kind=2:str
Time seconds=1:int? nanos=2:int
Quantity string=1:str
IntOrString type=1:int intVal=2:int? strVal=3:str
Strings items=1:*str
ObjectMeta name=1:str generateName=2:str namespace=3:str selfLink=4:str uid=5:str resourceVersion=6:str generation=7:int
ObjectMeta creationTimestamp=8:time labels=11:@str annotations=12:@str
ObjectMeta finalizers=14:*str ownerReferences=13:*OwnerReference
OwnerReference kind=1:str name=3:str uid=4:str apiVersion=5:str controller=6:bool? blockOwnerDeletion=7:bool?
LabelSelector matchLabels=1:@str matchExpressions=2:*LabelSelectorRequirement
LabelSelectorRequirement key=1:str operator=2:str values=3:*str
ObjectReference kind=1:str namespace=2:str name=3:str uid=4:str apiVersion=5:str resourceVersion=6:str fieldPath=7:str
Empty
Namespace metadata=1:ObjectMeta spec=2:NamespaceSpec status=3:NamespaceStatus
NamespaceSpec finalizers=1:*str
NamespaceStatus phase=1:str
ConfigMap metadata=1:ObjectMeta data=2:@str binaryData=3:@bytes immutable=4:bool?
Secret metadata=1:ObjectMeta data=2:@bytes type=3:str stringData=4:@str immutable=5:bool?
ServiceAccount metadata=1:ObjectMeta secrets=2:*ObjectReference imagePullSecrets=3:*LocalObjectReference
ServiceAccount automountServiceAccountToken=4:bool?
ResourceQuota metadata=1:ObjectMeta spec=2:ResourceQuotaSpec status=3:ResourceQuotaStatus
ResourceQuotaSpec hard=1:@quantity scopes=2:*str
ResourceQuotaStatus hard=1:@quantity used=2:@quantity
Service metadata=1:ObjectMeta spec=2:ServiceSpec status=3:ServiceStatus
ServiceStatus loadBalancer=1:LoadBalancerStatus
LoadBalancerStatus ingress=1:*LoadBalancerIngress
LoadBalancerIngress ip=1:str hostname=2:str
ServiceSpec ports=1:*ServicePort selector=2:@str clusterIP=3:str type=4:str externalIPs=5:*str sessionAffinity=7:str
ServiceSpec loadBalancerIP=8:str externalName=10:str externalTrafficPolicy=11:str healthCheckNodePort=12:int
ServiceSpec publishNotReadyAddresses=13:bool ipFamilyPolicy=17:str? clusterIPs=18:*str ipFamilies=19:*str
ServicePort name=1:str protocol=2:str port=3:int targetPort=4:intstr nodePort=5:int appProtocol=6:str?
PriorityClass metadata=1:ObjectMeta value=2:int? globalDefault=3:bool description=4:str preemptionPolicy=5:str?
Deployment metadata=1:ObjectMeta spec=2:DeploymentSpec status=3:DeploymentStatus
DeploymentSpec replicas=1:int? selector=2:LabelSelector template=3:PodTemplateSpec strategy=4:DeploymentStrategy
DeploymentSpec minReadySeconds=5:int revisionHistoryLimit=6:int? paused=7:bool progressDeadlineSeconds=9:int?
DeploymentStrategy type=1:str rollingUpdate=2:RollingUpdateDeployment
RollingUpdateDeployment maxUnavailable=1:intstr? maxSurge=2:intstr?
DeploymentStatus observedGeneration=1:int replicas=2:int updatedReplicas=3:int availableReplicas=4:int
DeploymentStatus unavailableReplicas=5:int readyReplicas=7:int
PodTemplateSpec metadata=1:ObjectMeta spec=2:PodSpec
Job metadata=1:ObjectMeta spec=2:JobSpec status=3:JobStatus
JobSpec parallelism=1:int? completions=2:int? activeDeadlineSeconds=3:int?
JobSpec selector=4:LabelSelector manualSelector=5:bool?
JobSpec template=6:PodTemplateSpec backoffLimit=7:int? ttlSecondsAfterFinished=8:int? completionMode=9:str?
JobSpec suspend=10:bool? podReplacementPolicy=14:str?
JobStatus active=4:int succeeded=5:int failed=6:int completedIndexes=7:str
CronJob metadata=1:ObjectMeta spec=2:CronJobSpec status=3:Empty
CronJobSpec schedule=1:str startingDeadlineSeconds=2:int? concurrencyPolicy=3:str suspend=4:bool?
CronJobSpec jobTemplate=5:JobTemplateSpec successfulJobsHistoryLimit=6:int?
CronJobSpec failedJobsHistoryLimit=7:int? timeZone=8:str?
JobTemplateSpec metadata=1:ObjectMeta spec=2:JobSpec
PodDisruptionBudget metadata=1:ObjectMeta spec=2:PodDisruptionBudgetSpec status=3:PodDisruptionBudgetStatus
PodDisruptionBudgetSpec minAvailable=1:intstr? selector=2:LabelSelector maxUnavailable=3:intstr?
PodDisruptionBudgetSpec unhealthyPodEvictionPolicy=4:str?
PodDisruptionBudgetStatus observedGeneration=1:int disruptionsAllowed=3:int currentHealthy=4:int desiredHealthy=5:int
PodDisruptionBudgetStatus expectedPods=6:int
Eviction metadata=1:ObjectMeta deleteOptions=2:DeleteOptions
DeleteOptions gracePeriodSeconds=1:int? preconditions=2:Preconditions orphanDependents=3:bool? propagationPolicy=4:str?
DeleteOptions dryRun=5:*str
Preconditions uid=1:str? resourceVersion=2:str?
HorizontalPodAutoscaler metadata=1:ObjectMeta spec=2:HorizontalPodAutoscalerSpec status=3:HorizontalPodAutoscalerStatus
HorizontalPodAutoscalerSpec scaleTargetRef=1:CrossVersionObjectReference minReplicas=2:int? maxReplicas=3:int
HorizontalPodAutoscalerSpec metrics=4:*MetricSpec
HorizontalPodAutoscalerV1 metadata=1:ObjectMeta spec=2:HorizontalPodAutoscalerV1Spec
HorizontalPodAutoscalerV1 status=3:HorizontalPodAutoscalerStatus
HorizontalPodAutoscalerV1Spec scaleTargetRef=1:CrossVersionObjectReference minReplicas=2:int? maxReplicas=3:int
HorizontalPodAutoscalerV1Spec targetCPUUtilizationPercentage=4:int?
HorizontalPodAutoscalerStatus observedGeneration=1:int currentReplicas=3:int desiredReplicas=4:int
CrossVersionObjectReference kind=1:str name=2:str apiVersion=3:str
MetricSpec type=1:str resource=4:ResourceMetricSource
ResourceMetricSource name=1:str target=2:MetricTarget
MetricTarget type=1:str value=2:quantity? averageValue=3:quantity? averageUtilization=4:int?
Role metadata=1:ObjectMeta rules=2:*PolicyRule
ClusterRole metadata=1:ObjectMeta rules=2:*PolicyRule aggregationRule=3:AggregationRule
AggregationRule clusterRoleSelectors=1:*LabelSelector
PolicyRule verbs=1:*str apiGroups=2:*str resources=3:*str resourceNames=4:*str nonResourceURLs=5:*str
RoleBinding metadata=1:ObjectMeta subjects=2:*Subject roleRef=3:RoleRef
ClusterRoleBinding metadata=1:ObjectMeta subjects=2:*Subject roleRef=3:RoleRef
Subject kind=1:str apiGroup=2:str name=3:str namespace=4:str
RoleRef apiGroup=1:str kind=2:str name=3:str
SelfSubjectReview metadata=1:ObjectMeta status=2:SelfSubjectReviewStatus
SelfSubjectReviewStatus userInfo=1:UserInfo
TokenRequest metadata=1:ObjectMeta spec=2:TokenRequestSpec status=3:TokenRequestStatus
TokenRequestSpec audiences=1:*str boundObjectRef=3:BoundObjectReference expirationSeconds=4:int?
TokenRequestStatus token=1:str expirationTimestamp=2:time
BoundObjectReference kind=1:str apiVersion=2:str name=3:str uid=4:str
TokenReview metadata=1:ObjectMeta spec=2:TokenReviewSpec status=3:TokenReviewStatus
TokenReviewSpec token=1:str audiences=2:*str
TokenReviewStatus authenticated=1:bool user=2:UserInfo error=3:str audiences=4:*str
UserInfo username=1:str uid=2:str groups=3:*str extra=4:@strings
SelfSubjectAccessReview metadata=1:ObjectMeta spec=2:SubjectAccessReviewSpec status=3:SubjectAccessReviewStatus
SubjectAccessReview metadata=1:ObjectMeta spec=2:SubjectAccessReviewSpec status=3:SubjectAccessReviewStatus
LocalSubjectAccessReview metadata=1:ObjectMeta spec=2:SubjectAccessReviewSpec status=3:SubjectAccessReviewStatus
SubjectAccessReviewSpec resourceAttributes=1:ResourceAttributes nonResourceAttributes=2:NonResourceAttributes user=3:str
SubjectAccessReviewSpec groups=4:*str extra=5:@strings uid=6:str
ResourceAttributes namespace=1:str verb=2:str group=3:str version=4:str resource=5:str subresource=6:str name=7:str
NonResourceAttributes path=1:str verb=2:str
SubjectAccessReviewStatus allowed=1:bool reason=2:str evaluationError=3:str denied=4:bool
SelfSubjectRulesReview metadata=1:ObjectMeta spec=2:SelfSubjectRulesReviewSpec status=3:SubjectRulesReviewStatus
SelfSubjectRulesReviewSpec namespace=1:str
SubjectRulesReviewStatus resourceRules=1:*ResourceRule nonResourceRules=2:*NonResourceRule incomplete=3:bool
SubjectRulesReviewStatus evaluationError=4:str
ResourceRule verbs=1:*str apiGroups=2:*str resources=3:*str resourceNames=4:*str
NonResourceRule verbs=1:*str nonResourceURLs=2:*str
Ingress metadata=1:ObjectMeta spec=2:IngressSpec status=3:IngressStatus
IngressSpec defaultBackend=1:IngressBackend tls=2:*IngressTLS rules=3:*IngressRule ingressClassName=4:str?
IngressStatus loadBalancer=1:IngressLoadBalancerStatus
IngressBackend resource=3:TypedLocalObjectReference service=4:IngressServiceBackend
IngressTLS hosts=1:*str secretName=2:str
IngressRule host=1:str IngressRuleValue=2:^IngressRuleValue
IngressLoadBalancerStatus ingress=1:*IngressLoadBalancerIngress
TypedLocalObjectReference apiGroup=1:str? kind=2:str name=3:str
IngressServiceBackend name=1:str port=2:ServiceBackendPort
IngressRuleValue http=1:HTTPIngressRuleValue
IngressLoadBalancerIngress ip=1:str hostname=2:str ports=4:*IngressPortStatus
ServiceBackendPort name=1:str number=2:int
HTTPIngressRuleValue paths=1:*HTTPIngressPath
IngressPortStatus port=1:int protocol=2:str error=3:str?
HTTPIngressPath path=1:str backend=2:IngressBackend pathType=3:str?
"""
