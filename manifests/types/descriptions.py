"""What fields mean, a line each: of a pod, of its containers, and of the objects beside pods.

For `kubelite explain`. The words say what a field does on this node, with unit and default where it has them; what
Kubernetes says at length is in its API reference. `tests/unit/cli/test_explain.py` keeps the names true, and the table
whole for a pod and its containers.
"""

from __future__ import annotations

# a type, then its fields as the wire has them
_TABLE = """
Object
  apiVersion  Group and version of the kind.
  kind  The kind.
  metadata  Name, namespace, labels and annotations.
Pod
  spec  The pod that is wanted.
  status  The pod as it is; written by the node, ignored in a manifest.
ObjectMeta
  annotations  Free text under keys, not selected by. Those under kubelite.io/ are settings of this pod.
  creationTimestamp  When the object was made; the node's to say.
  deletionGracePeriodSeconds  Seconds that a pod that ends has left; the node's to say.
  deletionTimestamp  When a pod that ends will be gone at the latest; the node's to say.
  finalizers  Nobody waits for them here.
  generateName  A manifest needs a name; one is not made up from this.
  generation  Counts the edits of spec; the node's to say.
  labels  Keys and values that selectors (-l) choose by.
  managedFields  Nobody has any here.
  name  Unique in its namespace, a DNS name.
  namespace  Keeps names apart; default where nothing is said. It is there as soon as something is in it.
  ownerReferences  What the object belongs to.
  resourceVersion  Changes with each write; the node's to say.
  selfLink  No longer used by Kubernetes.
  uid  Of this one object, never of another with its name; the node's to say.
PodSpec
  activeDeadlineSeconds  The pod has failed (DeadlineExceeded) when it is older than so many seconds.
  affinity  Which nodes and which pods it wants near, or far. What is preferred chooses between nodes: there is one.
  automountServiceAccountToken  No token is mounted on this node, whatever this says.
  containers  What runs, at least one; all start together when the init containers are done.
  dnsConfig  Name servers, search domains and options, added to what dnsPolicy gives.
  dnsPolicy  Default, ClusterFirst: the node's resolv.conf (or the setting cluster_dns); None: dnsConfig alone.
  enableServiceLinks  There are no Services here, so no variables of them either.
  ephemeralContainers  Added to a pod that runs, by kubelite debug; not in a manifest.
  hostAliases  Lines more for /etc/hosts.
  hostIPC  Use the machine's IPC namespace.
  hostNetwork  Use the machine's network: its addresses and its ports.
  hostPID  See and be among the machine's processes.
  hostUsers  false: a user namespace of its own, in which root is nobody on the machine.
  hostname  The host name inside; the pod's name where nothing is said.
  hostnameOverride  The host name inside, before hostname and subdomain.
  imagePullSecrets  Secrets with logins of registries.
  initContainers  Run one after the other, to their ends, before the containers; one with restartPolicy Always runs on.
  nodeName  The node that it is for; a pod that names another one waits.
  nodeSelector  Labels that the node must have.
  os  linux; another one is refused.
  overhead  Resources of the sandbox itself, added to those of the containers.
  preemptionPolicy  Never: no pod of lower priority has to go for this one.
  priority  Who goes first when room or memory is short: the lower; 0 where nothing is said.
  priorityClassName  The class that gives the priority.
  readinessGates  Conditions that must be True, beside ready containers, for the pod to be Ready; others set them.
  resourceClaims  Devices by dynamic resource allocation, which this node does not have.
  resources  Requests and limits of the pod as a whole.
  restartPolicy  What an exit means: Always (the default) start again, OnFailure only after a failure, Never.
  runtimeClassName  An OCI runtime of the setting runtime_classes, in place of the node's own.
  schedulerName  There is one scheduler here, whatever this says.
  schedulingGates  The pod waits until there are none.
  schedulingGroup  Pods are placed one by one here.
  securityContext  Users, groups and profiles of all containers; a container's own wins.
  serviceAccount  Older name of serviceAccountName.
  serviceAccountName  Is shown; nobody takes a token of it here.
  setHostnameAsFQDN  The host name inside has its domain.
  shareProcessNamespace  The containers see each other's processes; process 1 is the pause.
  subdomain  The second part of the pod's domain name.
  terminationGracePeriodSeconds  Seconds between the stop signal and SIGKILL; 30 where nothing is said.
  tolerations  Taints of the node that the pod puts up with.
  topologySpreadConstraints  How evenly pods are to lie over the values of a label of the node.
  volumes  What containers may mount.
Container
  args  Arguments of command, or of the image's ENTRYPOINT, in place of its CMD; $(NAME) is a variable's value.
  command  The program and its first arguments, in place of the image's ENTRYPOINT; no shell.
  env  Environment variables; a later one may use an earlier as $(NAME).
  envFrom  All keys of ConfigMaps or Secrets as variables; those of env win.
  image  The image's name; docker.io and latest where it does not say.
  imagePullPolicy  Always, IfNotPresent or Never; Always for latest and no tag, else IfNotPresent.
  lifecycle  Hooks after its start and before its stop; the signal that stops it.
  livenessProbe  Restarts the container when it fails.
  name  Unique in the pod.
  ports  Which ports it listens on; with hostPort they are ports of the machine.
  readinessProbe  Says whether the container counts as ready.
  resizePolicy  For cpu or memory: whether an edit of it restarts the container.
  resources  How much it is promised, and how much it may have.
  restartPolicy  Instead of the pod's. Always at an init container: it runs beside the others (a sidecar).
  restartPolicyRules  What an exit code means, before restartPolicy.
  securityContext  User, capabilities and profiles; wins over the pod's.
  startupProbe  Until it has succeeded, the other probes wait; when it fails for good the container is restarted.
  stdin  Keep its standard input open, for kubelite attach.
  stdinOnce  Close it when the first who attached has left.
  targetContainerName  The container whose processes this one sees.
  terminationMessagePath  File whose content is its last words in the status; /dev/termination-log.
  terminationMessagePolicy  FallbackToLogsOnError: the end of its log, where the file is empty and it failed; else File.
  tty  Give it a terminal.
  volumeDevices  Claims with volumeMode Block, as devices.
  volumeMounts  Volumes, and where they are in its file system.
  workingDir  The directory it starts in; the image's where nothing is said.
ContainerPort
  containerPort  The port inside.
  hostIP  Address of the machine at which hostPort is open; all of them where nothing is said.
  hostPort  The machine's port that leads to it.
  name  For probes and hooks, in place of the number.
  protocol  TCP (the default), UDP or SCTP.
EnvVar
  name  The variable.
  value  Its value, a string; $(NAME) is an earlier variable, $$ a dollar.
  valueFrom  Where its value comes from.
EnvVarSource
  configMapKeyRef  A key of a ConfigMap.
  fieldRef  A field of the pod: metadata.name, status.podIP, spec.nodeName, metadata.labels['x'].
  fileKeyRef  A variable of a file that an init container wrote.
  resourceFieldRef  A request or a limit of a container.
  secretKeyRef  A key of a Secret.
EnvFromSource
  configMapRef  The ConfigMap.
  prefix  Stands before each key.
  secretRef  The Secret.
Lifecycle
  postStart  Runs right after the start; the container counts as running when it is done, is restarted when it fails.
  preStop  Runs before the stop signal, inside the grace period.
  stopSignal  Instead of SIGTERM or the image's.
LifecycleHandler
  exec  A command in the container.
  httpGet  A GET of an address.
  sleep  Wait.
  tcpSocket  Deprecated: a hook with it fails.
SleepAction
  seconds  How long.
ExecAction
  command  The program and its arguments; no shell.
HTTPGetAction
  host  Instead of the pod's address.
  httpHeaders  Headers of the request.
  path  What to get; /.
  port  Number, or a port's name.
  scheme  HTTP (the default) or HTTPS, whose certificate is not checked.
HTTPHeader
  name  The header.
  value  Its value.
TCPSocketAction
  host  Instead of the pod's address.
  port  Number, or a port's name.
GRPCAction
  port  Number of the port.
  service  Which service's health is asked for.
Probe
  exec  Succeeds when the command exits with 0.
  failureThreshold  So many failures in a row count; 3.
  grpc  Succeeds when the health service answers SERVING.
  httpGet  Succeeds with a status from 200 to 399.
  initialDelaySeconds  Seconds after the start before the first try; 0.
  periodSeconds  Seconds from try to try; 10.
  successThreshold  So many successes in a row count; 1.
  tcpSocket  Succeeds when the port can be connected to.
  terminationGracePeriodSeconds  For the stop that the probe causes, instead of the pod's.
  timeoutSeconds  Seconds a try may take; 1.
ResourceRequirements
  claims  Devices by dynamic resource allocation, which this node does not have.
  limits  The most it may have: cpu is throttled, memory ends in OOMKilled. cpu: 500m is half a CPU; memory: 64Mi.
  requests  What it is promised and placed by; the limit where nothing is said.
ContainerResizePolicy
  resourceName  cpu or memory.
  restartPolicy  NotRequired (the default) or RestartContainer.
ContainerRestartRule
  action  Restart, or RestartAllContainers.
  exitCodes  Which codes it is about.
ContainerRestartRuleOnExitCodes
  operator  In or NotIn.
  values  The codes.
SecurityContext
  allowPrivilegeEscalation  false: nothing it executes gains privileges (no_new_privs).
  appArmorProfile  The AppArmor profile.
  capabilities  Capabilities more or fewer than docker's default ones.
  privileged  All capabilities and devices, no profiles: root of the machine.
  procMount  Unmasked: all of /proc is there; needs hostUsers false.
  readOnlyRootFilesystem  It can write to its volumes alone.
  runAsGroup  Its primary group, by number.
  runAsNonRoot  Refuse to start it as user 0.
  runAsUser  Its user, by number; the image's where nothing is said.
  seLinuxOptions  SELinux label, where the kernel has SELinux.
  seccompProfile  Filter of system calls: RuntimeDefault (here the default), Unconfined, Localhost.
  windowsOptions  Not for linux: refused.
PodSecurityContext
  appArmorProfile  The AppArmor profile.
  fsGroup  Group, by number, that volumes are given to and all processes are in.
  fsGroupChangePolicy  OnRootMismatch: leave a volume alone whose root is right already; Always.
  runAsGroup  Primary group, by number.
  runAsNonRoot  Refuse to start containers as user 0.
  runAsUser  User, by number.
  seLinuxChangePolicy  How volumes would be labelled; they are not, here.
  seLinuxOptions  SELinux label, where the kernel has SELinux.
  seccompProfile  Filter of system calls: RuntimeDefault (here the default), Unconfined, Localhost.
  supplementalGroups  Groups more, by number.
  supplementalGroupsPolicy  Strict: those of the image's /etc/group do not count; Merge (the default).
  sysctls  Kernel settings of the pod's own namespaces.
  windowsOptions  Not for linux: refused.
Capabilities
  add  By name, without CAP_; ALL.
  drop  By name, without CAP_; ALL.
SeccompProfile
  localhostProfile  File below the node's seccomp directory.
  type  RuntimeDefault, Unconfined or Localhost.
AppArmorProfile
  localhostProfile  Name of a profile that is loaded.
  type  RuntimeDefault, Unconfined or Localhost.
Sysctl
  name  As in sysctl(8).
  value  Its value.
VolumeMount
  mountPath  Where it is in the container, absolute.
  mountPropagation  None (the default), HostToContainer or Bidirectional.
  name  The volume.
  readOnly  It cannot be written to.
  recursiveReadOnly  Nor what is mounted in it: Disabled, IfPossible, Enabled.
  subPath  Only this part of it.
  subPathExpr  The same, with $(NAME) of the environment.
VolumeDevice
  devicePath  Where the device is in the container.
  name  The volume, a claim with volumeMode Block.
Volume
  configMap  Files of a ConfigMap, which follow its changes.
  downwardAPI  Files with fields of the pod.
  emptyDir  A directory that comes and goes with the pod.
  ephemeral  A claim of its own, made for the pod.
  hostPath  A path of the machine.
  image  The files of an image, read-only.
  name  Unique in the pod.
  nfs  A share of an NFS server.
  persistentVolumeClaim  A claim of the same namespace.
  projected  Several of configMap, secret and downwardAPI in one directory.
  secret  Files of a Secret, in memory.
EmptyDirVolumeSource
  medium  Memory: a tmpfs; HugePages; else a directory on the disk.
  sizeLimit  The pod is evicted when it outgrows this.
HostPathVolumeSource
  path  Absolute.
  type  What it must be, or is made: Directory, DirectoryOrCreate, File, FileOrCreate, Socket, CharDevice, BlockDevice.
ConfigMapVolumeSource
  defaultMode  Mode of the files; 0644.
  items  Which keys, and their file names; all where nothing is said.
  name  The ConfigMap.
  optional  It may be missing.
SecretVolumeSource
  defaultMode  Mode of the files; 0644.
  items  Which keys, and their file names; all where nothing is said.
  optional  It may be missing.
  secretName  The Secret.
KeyToPath
  key  The key.
  mode  Mode of the file.
  path  Its name below the volume.
PersistentVolumeClaimVolumeSource
  claimName  The claim.
  readOnly  It cannot be written to.
NFSVolumeSource
  path  The exported path.
  readOnly  It cannot be written to.
  server  The server's name or address.
ImageVolumeSource
  pullPolicy  Always, IfNotPresent or Never.
  reference  The image.
Toleration
  effect  NoSchedule, PreferNoSchedule or NoExecute; each where nothing is said.
  key  The taint's key; each where nothing is said.
  operator  Equal (the default) or Exists.
  tolerationSeconds  With NoExecute: for so long.
  value  The taint's value.
HostAlias
  hostnames  Its names.
  ip  The address.
ConfigMap
  binaryData  Keys and bytes, in base64.
  data  Keys and texts.
  immutable  Nobody may edit it on a cluster; an edit of its manifest counts here.
Secret
  data  Keys and bytes, in base64.
  immutable  Nobody may edit it on a cluster; an edit of its manifest counts here.
  stringData  Keys and texts, in place of data.
  type  Opaque, kubernetes.io/dockerconfigjson, …
PersistentVolumeClaim
  spec  The storage that is wanted.
  status  Whether it is bound, and what it has; the node's to say.
PersistentVolumeClaimSpec
  accessModes  ReadWriteOnce, ReadOnlyMany, ReadWriteMany, ReadWriteOncePod: the last is kept to one pod.
  dataSource  Not done here: such a claim stays Pending.
  dataSourceRef  Not done here: such a claim stays Pending.
  resources  requests.storage is its size.
  selector  Labels that the PersistentVolume must have.
  storageClassName  The class; "" waits for a PersistentVolume without one.
  volumeMode  Filesystem (the default) or Block.
  volumeName  This PersistentVolume and no other.
PersistentVolume
  spec  Where it is, and who may have it.
  status  Whether it is bound; the node's to say.
PersistentVolumeSpec
  accessModes  ReadWriteOnce, ReadOnlyMany, ReadWriteMany, ReadWriteOncePod.
  capacity  storage: its size.
  claimRef  The claim that it is kept for.
  hostPath  A path of the machine.
  local  A path of the machine, a directory or a device.
  mountOptions  Options of the nfs mount.
  nfs  A share of an NFS server.
  nodeAffinity  Which node it is of.
  persistentVolumeReclaimPolicy  What becomes of it when its claim goes: Retain (the default), Recycle, Delete.
  storageClassName  The class that claims find it by.
  volumeMode  Filesystem (the default) or Block.
StorageClass
  allowVolumeExpansion  Is shown; a claim's size follows its manifest.
  parameters  For a provisioner; none is asked for them here.
  provisioner  kubernetes.io/no-provisioner: claims wait for a PersistentVolume. Any other: a directory is made.
  reclaimPolicy  Of the claims' directories: Delete (the default) or Retain.
  volumeBindingMode  Immediate (the default), or WaitForFirstConsumer: bound when a pod wants it.
PriorityClass
  description  For people.
  globalDefault  For pods that name no class.
  preemptionPolicy  PreemptLowerPriority (the default) or Never.
  value  The priority; the higher counts more.
"""


def _parse(table: str) -> dict[tuple[str, str], str]:
    found: dict[tuple[str, str], str] = {}
    kind = ""
    for line in table.strip().splitlines():
        if not line.startswith(" "):
            kind = line
            continue
        field, _, words = line.strip().partition("  ")
        found[kind, field] = words
    return found


#: (type, field as the wire has it) → what it means
DESCRIPTIONS = _parse(_TABLE)
