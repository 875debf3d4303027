"""One-line descriptions of fields, for `kubelite explain`: of pods, containers and the other kinds.

A description says what the field does on this node, with its unit and default; Kubernetes' API reference has the
details. `tests/unit/cli/test_explain.py` checks that all names exist, and that the table is complete for a pod and its
containers.
"""

from __future__ import annotations

# a type, then its fields by their JSON names
_TABLE = """
Object
  apiVersion  API group and version of the kind.
  kind  The kind of the object.
  metadata  Name, namespace, labels and annotations.
Pod
  spec  The desired state.
  status  The current state; written by the node, ignored in a manifest.
ObjectMeta
  annotations  Free-form keys and values. Keys below kubelite.io/ are settings of this pod.
  creationTimestamp  When the object was created; set by the node.
  deletionGracePeriodSeconds  Grace period of a terminating pod, in seconds; set by the node.
  deletionTimestamp  When the grace period of a terminating pod ends; set by the node.
  finalizers  Ignored on this node.
  generateName  Prefix of the name of an object that sets no name. The rest follows from its file and its place there.
  generation  Number of edits of spec; set by the node.
  labels  Keys and values by which selectors (-l) choose objects.
  managedFields  Who has set which fields by the API. The node records it; in a manifest it is ignored.
  name  A DNS name, unique in its namespace.
  namespace  Scope of the name; default if not set. A namespace exists as soon as it contains an object.
  ownerReferences  Objects that this one belongs to.
  resourceVersion  Changes with each write; set by the node.
  selfLink  No longer used by Kubernetes.
  uid  Identifies this object, also among later ones with the same name; set by the node.
PodSpec
  activeDeadlineSeconds  The pod fails (DeadlineExceeded) after this many seconds.
  affinity  Nodes and pods to run beside, or apart from. Preferred terms have no effect on a single node.
  automountServiceAccountToken  Ignored: this node mounts no tokens.
  containers  The containers, at least one; all start together after the init containers.
  dnsConfig  Name servers, search domains and options, added to those of dnsPolicy.
  dnsPolicy  Default, ClusterFirst: the node's resolv.conf (or the setting resolv_conf); None: dnsConfig alone.
  enableServiceLinks  false: no variables for the Services of the namespace.
  ephemeralContainers  Added to a running pod by kubelite debug; not allowed in a manifest.
  hostAliases  Additional lines of /etc/hosts.
  hostIPC  Use the node's IPC namespace.
  hostNetwork  Use the node's network: its addresses and ports.
  hostPID  Use the node's PID namespace: see all processes of the node.
  hostUsers  false: run in a user namespace, in which root has no privileges on the node.
  hostname  Host name inside the pod; default: the pod's name.
  hostnameOverride  Host name inside the pod; takes precedence over hostname and subdomain.
  imagePullSecrets  Secrets with registry credentials.
  initContainers  Run to completion, one by one, before the containers; with restartPolicy Always one keeps running.
  nodeName  Node to run on; a pod that names another node stays Pending.
  nodeSelector  Labels that the node must have.
  os  linux; any other value is refused.
  overhead  Resources of the sandbox itself, added to those of the containers.
  preemptionPolicy  Never: this pod does not preempt pods of lower priority.
  priority  Pods of lower priority are preempted and evicted first; default 0.
  priorityClassName  PriorityClass that sets the priority.
  readinessGates  Conditions, set by others, that must be True for the pod to be Ready, besides ready containers.
  resourceClaims  Devices by dynamic resource allocation; not supported on this node.
  resources  Requests and limits of the pod as a whole.
  restartPolicy  When containers restart: Always (the default), OnFailure or Never.
  runtimeClassName  OCI runtime to use instead of the built-in one, from the setting runtime_classes.
  schedulerName  Ignored: this node has one scheduler.
  schedulingGates  The pod stays Pending until this list is empty.
  schedulingGroup  Ignored: this node schedules pods one by one.
  securityContext  Users, groups and profiles of all containers; a container's own settings take precedence.
  serviceAccount  Old name of serviceAccountName.
  serviceAccountName  Shown only: this node issues no tokens for it.
  setHostnameAsFQDN  Use the fully qualified domain name as the host name inside the pod.
  shareProcessNamespace  The containers see each other's processes; process 1 is the pause process.
  subdomain  Second part of the pod's domain name.
  terminationGracePeriodSeconds  Seconds between the stop signal and SIGKILL; default 30.
  tolerations  Taints of the node that the pod tolerates.
  topologySpreadConstraints  How evenly pods are spread over the values of a node label.
  volumes  Volumes that containers can mount.
Container
  args  Arguments of command, or of the image's ENTRYPOINT, instead of its CMD. $(NAME) expands to a variable.
  command  Program and first arguments, instead of the image's ENTRYPOINT; not run in a shell.
  env  Environment variables. Later ones can use earlier ones as $(NAME).
  envFrom  ConfigMaps or Secrets whose keys all become variables; env takes precedence.
  image  Name of the image; default registry docker.io, default tag latest.
  imagePullPolicy  Always, IfNotPresent or Never; default Always for the tag latest or no tag, else IfNotPresent.
  lifecycle  Hooks after the start and before the stop, and the stop signal.
  livenessProbe  The container is restarted if this probe fails.
  name  Unique in the pod.
  ports  Ports the container listens on; with hostPort, also ports of the node.
  readinessProbe  Determines whether the container is ready.
  resizePolicy  For cpu or memory: whether editing it restarts the container.
  resources  Guaranteed (requests) and maximum (limits) resources.
  restartPolicy  Overrides the pod's. Always on an init container makes it a sidecar.
  restartPolicyRules  Actions for exit codes; checked before restartPolicy.
  securityContext  User, capabilities and profiles; takes precedence over the pod's.
  startupProbe  The other probes start after it succeeds; the container is restarted if it fails.
  stdin  Keep standard input open, for kubelite attach.
  stdinOnce  Close standard input when the first attached client disconnects.
  targetContainerName  Container whose processes this one can see.
  terminationMessagePath  File whose content becomes the termination message in the status; /dev/termination-log.
  terminationMessagePolicy  FallbackToLogsOnError: if it failed and the file is empty, the end of its log; default File.
  tty  Allocate a terminal.
  volumeDevices  Claims with volumeMode Block to use as devices.
  volumeMounts  Volumes to mount, and where.
  workingDir  Working directory; default: the image's.
ContainerPort
  containerPort  Port inside the pod.
  hostIP  Address of the node on which hostPort is open; default: all addresses.
  hostPort  Port of the node that is forwarded to containerPort.
  name  Name by which probes and hooks can refer to the port.
  protocol  TCP (the default), UDP or SCTP.
EnvVar
  name  Name of the variable.
  value  Its value, a string. $(NAME) expands to an earlier variable, $$ to a dollar sign.
  valueFrom  Source of the value.
EnvVarSource
  configMapKeyRef  A key of a ConfigMap.
  fieldRef  A field of the pod: metadata.name, status.podIP, spec.nodeName, metadata.labels['x'].
  fileKeyRef  A variable in a file that an init container wrote.
  resourceFieldRef  A request or a limit of a container.
  secretKeyRef  A key of a Secret.
EnvFromSource
  configMapRef  The ConfigMap.
  prefix  Prefix of each variable name.
  secretRef  The Secret.
Lifecycle
  postStart  Runs right after the start. The container counts as running when it succeeds, and restarts when it fails.
  preStop  Runs before the stop signal, within the grace period.
  stopSignal  Signal that stops the container; default: the image's, else SIGTERM.
LifecycleHandler
  exec  A command in the container.
  httpGet  An HTTP GET request.
  sleep  A pause.
  tcpSocket  Deprecated: a hook of this type fails.
SleepAction
  seconds  Length of the pause.
ExecAction
  command  Program and arguments; not run in a shell.
HTTPGetAction
  host  Host to connect to; default: the pod's address.
  httpHeaders  Headers of the request.
  path  Path of the request; default /.
  port  Number or name of the port.
  scheme  HTTP (the default) or HTTPS; the certificate is not verified.
HTTPHeader
  name  Name of the header.
  value  Its value.
TCPSocketAction
  host  Host to connect to; default: the pod's address.
  port  Number or name of the port.
GRPCAction
  port  Number of the port.
  service  Service name in the health request.
Probe
  exec  Succeeds if the command exits with 0.
  failureThreshold  Consecutive failures after which the probe has failed; default 3.
  grpc  Succeeds if the health service answers SERVING.
  httpGet  Succeeds with a status code from 200 to 399.
  initialDelaySeconds  Seconds between the start and the first try; default 0.
  periodSeconds  Seconds between tries; default 10.
  successThreshold  Consecutive successes after which the probe has succeeded; default 1.
  tcpSocket  Succeeds if a connection to the port can be opened.
  terminationGracePeriodSeconds  Grace period if the probe stops the container; default: the pod's.
  timeoutSeconds  Timeout of a try in seconds; default 1.
ResourceRequirements
  claims  Devices by dynamic resource allocation; not supported on this node.
  limits  Maximum: cpu is throttled, memory ends in OOMKilled. cpu: 500m is half a CPU; memory: 64Mi.
  requests  Guaranteed resources, used for scheduling; default: the limits.
ContainerResizePolicy
  resourceName  cpu or memory.
  restartPolicy  NotRequired (the default) or RestartContainer.
ContainerRestartRule
  action  Restart or RestartAllContainers.
  exitCodes  Exit codes the rule applies to.
ContainerRestartRuleOnExitCodes
  operator  In or NotIn.
  values  The exit codes.
SecurityContext
  allowPrivilegeEscalation  false: no program it executes gains privileges (no_new_privs).
  appArmorProfile  The AppArmor profile.
  capabilities  Capabilities added to or dropped from docker's default set.
  privileged  All capabilities and devices, no profiles: equal to root on the node.
  procMount  Unmasked: do not hide parts of /proc; needs hostUsers false.
  readOnlyRootFilesystem  Only volumes are writable.
  runAsGroup  Primary group ID.
  runAsNonRoot  Refuse to start as user 0.
  runAsUser  User ID; default: the image's user.
  seLinuxOptions  SELinux label, if the kernel has SELinux.
  seccompProfile  Filter of system calls: RuntimeDefault (the default on this node), Unconfined or Localhost.
  windowsOptions  Refused: for Windows only.
PodSecurityContext
  appArmorProfile  The AppArmor profile.
  fsGroup  Group ID that owns the volumes and that all processes belong to.
  fsGroupChangePolicy  OnRootMismatch: skip a volume whose root directory has the right owner; or Always.
  runAsGroup  Primary group ID.
  runAsNonRoot  Refuse to start containers as user 0.
  runAsUser  User ID.
  seLinuxChangePolicy  Ignored: this node does not relabel volumes.
  seLinuxOptions  SELinux label, if the kernel has SELinux.
  seccompProfile  Filter of system calls: RuntimeDefault (the default on this node), Unconfined or Localhost.
  supplementalGroups  Additional group IDs.
  supplementalGroupsPolicy  Merge (the default), or Strict: ignore the groups in the image's /etc/group.
  sysctls  Kernel parameters of the pod's namespaces.
  windowsOptions  Refused: for Windows only.
Capabilities
  add  Names without CAP_, or ALL.
  drop  Names without CAP_, or ALL.
SeccompProfile
  localhostProfile  File below the node's seccomp directory.
  type  RuntimeDefault, Unconfined or Localhost.
AppArmorProfile
  localhostProfile  Name of a loaded profile.
  type  RuntimeDefault, Unconfined or Localhost.
Sysctl
  name  Name, as in sysctl(8).
  value  Its value.
VolumeMount
  mountPath  Absolute path in the container.
  mountPropagation  None (the default), HostToContainer or Bidirectional.
  name  Name of the volume.
  readOnly  Mount it read-only.
  recursiveReadOnly  Make mounts below it read-only too: Disabled, IfPossible or Enabled.
  subPath  Mount only this path of the volume.
  subPathExpr  Like subPath; $(NAME) expands to an environment variable.
VolumeDevice
  devicePath  Path of the device in the container.
  name  Name of the volume, a claim with volumeMode Block.
Volume
  configMap  Files from a ConfigMap, updated when it changes.
  downwardAPI  Files with fields of the pod.
  emptyDir  A directory that exists as long as the pod.
  ephemeral  A claim created for this pod.
  hostPath  A path of the node.
  image  The files of an image, read-only.
  name  Unique in the pod.
  nfs  A share of an NFS server.
  persistentVolumeClaim  A claim in the same namespace.
  projected  Files from configMap, secret and downwardAPI sources in one directory.
  secret  Files from a Secret, kept in memory.
EmptyDirVolumeSource
  medium  Memory: a tmpfs; HugePages: huge pages; default: a directory on disk.
  sizeLimit  The pod is evicted if it uses more.
HostPathVolumeSource
  path  Absolute path.
  type  Required type: Directory, File, Socket, CharDevice, BlockDevice; DirectoryOrCreate and FileOrCreate create it.
ConfigMapVolumeSource
  defaultMode  Mode of the files; default 0644.
  items  Keys to use, and their file names; default: all keys.
  name  The ConfigMap.
  optional  true: it may be missing.
SecretVolumeSource
  defaultMode  Mode of the files; default 0644.
  items  Keys to use, and their file names; default: all keys.
  optional  true: it may be missing.
  secretName  The Secret.
KeyToPath
  key  The key.
  mode  Mode of the file.
  path  File name, relative to the volume.
PersistentVolumeClaimVolumeSource
  claimName  The claim.
  readOnly  Mount it read-only.
NFSVolumeSource
  path  The exported path.
  readOnly  Mount it read-only.
  server  Name or address of the server.
ImageVolumeSource
  pullPolicy  Always, IfNotPresent or Never.
  reference  Name of the image.
Toleration
  effect  NoSchedule, PreferNoSchedule or NoExecute; default: all effects.
  key  Key of the taint; default: all keys.
  operator  Equal (the default) or Exists.
  tolerationSeconds  With NoExecute: seconds for which the taint is tolerated.
  value  Value of the taint.
HostAlias
  hostnames  Names of the address.
  ip  The address.
ConfigMap
  binaryData  Keys and binary values, in base64.
  data  Keys and text values.
  immutable  Forbids edits on a cluster; here, an edit of the manifest still applies.
Secret
  data  Keys and values, in base64.
  immutable  Forbids edits on a cluster; here, an edit of the manifest still applies.
  stringData  Keys and plain text values; take precedence over data.
  type  Opaque, kubernetes.io/dockerconfigjson, …
PersistentVolumeClaim
  spec  The requested storage.
  status  Whether the claim is bound, and to what; set by the node.
PersistentVolumeClaimSpec
  accessModes  ReadWriteOnce, ReadOnlyMany, ReadWriteMany or ReadWriteOncePod; only the last is enforced: one pod.
  dataSource  Not supported: such a claim stays Pending.
  dataSourceRef  Not supported: such a claim stays Pending.
  resources  requests.storage is the size.
  selector  Labels that the PersistentVolume must have.
  storageClassName  The class; "" waits for a PersistentVolume without a class.
  volumeMode  Filesystem (the default) or Block.
  volumeName  Bind to this PersistentVolume only.
PersistentVolume
  spec  Where the volume is, and which claims may bind to it.
  status  Whether the volume is bound; set by the node.
PersistentVolumeSpec
  accessModes  ReadWriteOnce, ReadOnlyMany, ReadWriteMany, ReadWriteOncePod.
  capacity  storage: the size.
  claimRef  The claim that the volume is reserved for or bound to.
  hostPath  A path of the node.
  local  A path of the node, a directory or a block device.
  mountOptions  Options of an nfs mount.
  nfs  A share of an NFS server.
  nodeAffinity  Nodes the volume is available on.
  persistentVolumeReclaimPolicy  What happens when the claim is deleted: Retain (the default), Recycle or Delete.
  storageClassName  Class of the claims that can bind to it.
  volumeMode  Filesystem (the default) or Block.
StorageClass
  allowVolumeExpansion  Shown only: a claim's size always follows its manifest.
  parameters  Ignored on this node.
  provisioner  kubernetes.io/no-provisioner: claims wait for a PersistentVolume. Any other: a directory is created.
  reclaimPolicy  What happens to a claim's directory: Delete (the default) or Retain.
  volumeBindingMode  Immediate (the default), or WaitForFirstConsumer: bind when a pod uses the claim.
PriorityClass
  description  For people.
  globalDefault  Use this class for pods that name none.
  preemptionPolicy  PreemptLowerPriority (the default) or Never.
  value  The priority; higher values are more important.
"""


def parse(table: str) -> dict[tuple[str, str], str]:
    """Read a table of types and their fields: (type, JSON name of the field) → description."""
    found: dict[tuple[str, str], str] = {}
    kind = ""
    for line in table.strip().splitlines():
        if not line.startswith(" "):
            kind = line
            continue
        field, _, words = line.strip().partition("  ")
        found[kind, field] = words
    return found


#: (type, JSON name of the field) → description
DESCRIPTIONS = parse(_TABLE)

KIND_DESCRIPTIONS = {
    "Pod": "One or more containers that share a network and volumes, and are started and stopped together.",
    "ConfigMap": "Configuration data by key, for containers' environment variables and files.",
    "Secret": "Confidential data by key. Containers get it as files in memory or as environment variables.",
    "PersistentVolumeClaim": "Storage that outlives the pods that use it.",
    "PersistentVolume": "Storage that a claim can be bound to.",
    "StorageClass": "How storage is provided to the claims that name it.",
    "PriorityClass": "A name for a priority of pods.",
    "ClusterTrustBundle": "Certificates that pods trust, for projected volumes.",
}
