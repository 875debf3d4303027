"""One-line descriptions of the fields of workloads, for `kubelite explain`.

Read like `manifests.types.descriptions`; a test checks that every field of every kind in WORKLOADS has one.
"""

from manifests.types.descriptions import DESCRIPTIONS as CORE
from manifests.types.descriptions import KIND_DESCRIPTIONS as CORE_KINDS
from manifests.types.descriptions import parse
from manifests.types.services.descriptions import SERVICE_KINDS, SERVICES
from manifests.types.services.descriptions_ingress import INGRESS, INGRESS_KINDS
from manifests.types.services.descriptions_policies import NETWORK_POLICIES, NETWORK_POLICY_KIND
from manifests.types.workloads.descriptions_policies import CONDITION, POLICIES

# fields that several types share
_REPLICAS = """\
  availableReplicas  Pods that have been ready for minReadySeconds.
  conditions  ReplicaFailure, if pods cannot be created or deleted.
  fullyLabeledReplicas  Pods that have all labels of the template.
  observedGeneration  The generation that this status describes.
  readyReplicas  Pods that are ready.
  replicas  Pods that exist, without terminating ones."""

# a type, then its fields by their JSON names
_TABLE = f"""
PodTemplateSpec
  metadata  Labels and annotations of the pods. The name is made from the owner's.
  spec  What each pod looks like.
LabelSelector
  matchExpressions  Requirements that labels must meet; all must hold.
  matchLabels  Labels that must have these values; all must hold.
LabelSelectorRequirement
  key  Name of the label.
  operator  In, NotIn, Exists or DoesNotExist.
  values  Values for In and NotIn.
ObjectReference
  fieldPath  Part of the object, like spec.containers{{web}}.
  name  Name of the object.
  namespace  Namespace of the object.
  resourceVersion  Version of the object that is meant.
  uid  Uid of the object.
Deployment
  spec  The desired state.
  status  The current state; written by the node, ignored in a manifest.
DeploymentSpec
  minReadySeconds  A pod counts as available once it has been ready for this many seconds; default 0.
  paused  true: changes of the template start no rollout until it is false again.
  progressDeadlineSeconds  A rollout without progress for this many seconds has failed; default 600.
  replicas  Number of pods; default 1.
  revisionHistoryLimit  How many old ReplicaSets remain for a rollback; default 10.
  selector  Labels of the pods that belong to it. Must match the template's labels, and cannot change.
  strategy  How pods of an old template are replaced.
  template  What each pod looks like. A change starts a rollout.
DeploymentStrategy
  rollingUpdate  How many pods are replaced at once, for RollingUpdate.
  type  RollingUpdate (the default): little by little. Recreate: all old pods end before the first new one starts.
RollingUpdateDeployment
  maxSurge  How many pods, or which share, there may be beyond replicas; default 25%, rounded up.
  maxUnavailable  How many pods, or which share, may be missing from replicas; default 25%, rounded down.
DeploymentStatus
  availableReplicas  Pods that have been ready for minReadySeconds.
  collisionCount  How often a ReplicaSet's name was taken already.
  conditions  Available, Progressing and ReplicaFailure.
  observedGeneration  The generation that this status describes.
  readyReplicas  Pods that are ready.
  replicas  Pods that exist, of all revisions; without terminating ones.
  terminatingReplicas  Pods that are being deleted.
  unavailableReplicas  Pods that are missing, or not available yet.
  updatedReplicas  Pods of the current template.
DeploymentCondition
{CONDITION}
  lastUpdateTime  When the condition was last written.
  type  Available, Progressing or ReplicaFailure.
ReplicaSet
  spec  The desired state.
  status  The current state; written by the node, ignored in a manifest.
ReplicaSetSpec
  minReadySeconds  A pod counts as available once it has been ready for this many seconds; default 0.
  replicas  Number of pods; default 1.
  selector  Labels of the pods that belong to it. Must match the template's labels, and cannot change.
  template  What each pod looks like. A change applies to new pods only.
ReplicaSetStatus
{_REPLICAS}
  terminatingReplicas  Pods that are being deleted.
ReplicaSetCondition
{CONDITION}
  type  ReplicaFailure.
ReplicationController
  spec  The desired state.
  status  The current state; written by the node, ignored in a manifest.
ReplicationControllerSpec
  minReadySeconds  A pod counts as available once it has been ready for this many seconds; default 0.
  replicas  Number of pods; default 1.
  selector  Labels of the pods that belong to it; default: the template's labels.
  template  What each pod looks like. A change applies to new pods only.
ReplicationControllerStatus
{_REPLICAS}
ReplicationControllerCondition
{CONDITION}
  type  ReplicaFailure.
Job
  spec  The desired state.
  status  The current state; written by the node, ignored in a manifest.
JobSpec
  activeDeadlineSeconds  The Job fails (DeadlineExceeded) when it has run for this many seconds.
  backoffLimit  The Job fails when more pods than this have failed; default 6.
  backoffLimitPerIndex  An index fails when more of its pods than this have failed; for Indexed only.
  completionMode  NonIndexed (the default): pods are alike. Indexed: each pod has a number, from 0 to completions - 1.
  completions  How many pods must succeed; default 1. Without it, parallelism pods run until one of them succeeds.
  managedBy  Another controller that runs this Job; the node leaves it alone.
  manualSelector  true: use selector and the template's labels as they are, instead of generating them.
  maxFailedIndexes  The Job fails when more indexes than this have failed.
  parallelism  How many pods run at the same time; default 1.
  podFailurePolicy  What a failed pod means, by its exit code or conditions; checked before backoffLimit.
  podReplacementPolicy  When a pod is replaced: TerminatingOrFailed (the default), or only when it has ended: Failed.
  selector  Generated; set it only with manualSelector.
  successPolicy  When an indexed Job has succeeded, although not every index has.
  suspend  true: the Job's pods are deleted, and it waits until this is false.
  template  What each pod looks like; restartPolicy is OnFailure or Never. Cannot change.
  ttlSecondsAfterFinished  The Job is deleted this many seconds after it has ended. Without it, it stays.
PodFailurePolicy
  rules  Rules in order, at most 20; the first that matches a failed pod applies.
PodFailurePolicyRule
  action  FailJob, FailIndex, Ignore (do not count the failure) or Count (towards backoffLimit).
  onExitCodes  Exit codes that the rule matches.
  onPodConditions  Conditions of the pod that the rule matches; one is enough.
PodFailurePolicyOnExitCodesRequirement
  containerName  Container whose exit code counts; default: any.
  operator  In: the exit code is one of values. NotIn: it is none of them, and not 0.
  values  Exit codes in ascending order.
PodFailurePolicyOnPodConditionsPattern
  status  True (the default), False or Unknown.
  type  Type of the condition, like DisruptionTarget.
SuccessPolicy
  rules  Rules in order; the Job has succeeded when one is met.
SuccessPolicyRule
  succeededCount  How many indexes must have succeeded; with succeededIndexes, how many of these.
  succeededIndexes  Indexes that must have succeeded, like 0,2-4.
JobStatus
  active  Pods that are pending or running, and not terminating.
  completedIndexes  Indexes that succeeded, like 0,2-4.
  completionTime  When the Job succeeded.
  conditions  SuccessCriteriaMet, Complete, FailureTarget, Failed and Suspended.
  failed  Pods that failed.
  failedIndexes  Indexes that failed, like 0,2-4.
  ready  Active pods that are ready.
  startTime  When the Job began, or was last resumed.
  succeeded  Pods that succeeded.
  terminating  Pods that are being deleted.
  uncountedTerminatedPods  Pods that have ended, but are not in the counts yet.
UncountedTerminatedPods
  failed  Uids of failed pods.
  succeeded  Uids of succeeded pods.
JobCondition
  lastProbeTime  When the condition was last checked.
{CONDITION}
  type  SuccessCriteriaMet, Complete, FailureTarget, Failed or Suspended.
CronJob
  spec  The desired state.
  status  The current state; written by the node, ignored in a manifest.
CronJobSpec
  concurrencyPolicy  If the last Job still runs: Allow another (the default), Forbid it, or Replace the last one.
  failedJobsHistoryLimit  How many failed Jobs are kept; default 1.
  jobTemplate  What each Job looks like.
  schedule  Minute, hour, day, month and weekday as in crontab(5), or @hourly, @daily, @weekly, @monthly, @yearly.
  startingDeadlineSeconds  A run that is more seconds late is skipped. Without it, the last missed run is made up for.
  successfulJobsHistoryLimit  How many successful Jobs are kept; default 3.
  suspend  true: no new Jobs; those that run go on.
  timeZone  Time zone of the schedule, like Europe/Vienna; default: the node's.
JobTemplateSpec
  metadata  Labels and annotations of the Jobs.
  spec  What each Job looks like.
CronJobStatus
  active  Jobs that run.
  lastScheduleTime  When a Job was last due and created.
  lastSuccessfulTime  When a Job last succeeded.
StatefulSet
  spec  The desired state.
  status  The current state; written by the node, ignored in a manifest.
StatefulSetSpec
  minReadySeconds  A pod counts as available once it has been ready for this many seconds; default 0.
  ordinals  Where the numbers of the pods start.
  persistentVolumeClaimRetentionPolicy  Whether the claims of the pods outlive them.
  podManagementPolicy  OrderedReady (the default): one pod after the other. Parallel: all at once.
  replicas  Number of pods; default 1. They are called NAME-0, NAME-1, …
  revisionHistoryLimit  How many old revisions remain for a rollback; default 10.
  selector  Labels of the pods that belong to it. Must match the template's labels, and cannot change.
  serviceName  Service whose DNS name the pods' names are below; the pods' subdomain.
  template  What each pod looks like. A change starts a rollout.
  updateStrategy  How pods of an old template are replaced.
  volumeClaimTemplates  A claim for each pod, called TEMPLATE-NAME-0, … and a volume with the template's name.
StatefulSetOrdinals
  start  Number of the first pod; default 0.
StatefulSetPersistentVolumeClaimRetentionPolicy
  whenDeleted  Retain (the default) or Delete the claims when the StatefulSet is deleted.
  whenScaled  Retain (the default) or Delete the claims of pods that a smaller replicas removes.
StatefulSetUpdateStrategy
  rollingUpdate  Which pods are replaced, for RollingUpdate.
  type  RollingUpdate (the default): from the last pod to the first. OnDelete: when somebody deletes a pod.
RollingUpdateStatefulSetStrategy
  maxUnavailable  How many pods, or which share, may be replaced at the same time; default 1.
  partition  Pods with a lower number keep the old template; default 0.
StatefulSetStatus
  availableReplicas  Pods that have been ready for minReadySeconds.
  collisionCount  How often a revision's name was taken already.
  conditions  None so far.
  currentReplicas  Pods of currentRevision.
  currentRevision  Revision of the pods that are not updated yet.
  observedGeneration  The generation that this status describes.
  readyReplicas  Pods that are ready.
  replicas  Pods that exist.
  updateRevision  Revision of the current template.
  updatedReplicas  Pods of updateRevision.
StatefulSetCondition
{CONDITION}
  type  Type of the condition.
PersistentVolumeClaimSpec
  volumeAttributesClassName  Shown only.
PersistentVolumeClaimStatus
  accessModes  Access modes of the bound volume.
  capacity  Size of the bound volume.
  phase  Pending, Bound or Lost.
VolumeResourceRequirements
  limits  Shown only.
  requests  storage: the size.
TypedLocalObjectReference
  apiGroup  Group of the kind.
  kind  Kind of the object.
  name  Name of the object.
TypedObjectReference
  apiGroup  Group of the kind.
  kind  Kind of the object.
  name  Name of the object.
  namespace  Namespace of the object.
DaemonSet
  spec  The desired state.
  status  The current state; written by the node, ignored in a manifest.
DaemonSetSpec
  minReadySeconds  A pod counts as available once it has been ready for this many seconds; default 0.
  revisionHistoryLimit  How many old revisions remain for a rollback; default 10.
  selector  Labels of the pods that belong to it. Must match the template's labels, and cannot change.
  template  What the pod looks like. It runs if its node selector, affinity and tolerations fit the node.
  updateStrategy  How a pod of an old template is replaced.
DaemonSetUpdateStrategy
  rollingUpdate  Whether the new pod starts before the old one ends, for RollingUpdate.
  type  RollingUpdate (the default): at once. OnDelete: when somebody deletes the pod.
RollingUpdateDaemonSet
  maxSurge  1 or 100%: the new pod starts beside the old one; default 0.
  maxUnavailable  1 or 100%: the old pod ends first; default 1. One of the two is 0.
DaemonSetStatus
  collisionCount  How often a revision's name was taken already.
  conditions  None so far.
  currentNumberScheduled  1 if the node runs a pod, and should.
  desiredNumberScheduled  1 if the node should run a pod.
  numberAvailable  1 if the pod has been ready for minReadySeconds.
  numberMisscheduled  1 if the node runs a pod, but should not.
  numberReady  1 if the pod is ready.
  numberUnavailable  1 if the pod is missing, or not available yet.
  observedGeneration  The generation that this status describes.
  updatedNumberScheduled  1 if the pod is of the current template.
DaemonSetCondition
{CONDITION}
  type  Type of the condition.
ControllerRevision
  data  The template and what else belongs to the revision.
  revision  Number of the revision; a later one is higher.
"""

#: kind → what it is for
KIND_DESCRIPTIONS = {
    **INGRESS_KINDS,
    **SERVICE_KINDS,
    **NETWORK_POLICY_KIND,
    "Deployment": "Keeps a number of equal pods running, and replaces them little by little when the template changes.",
    "ReplicaSet": "Keeps a number of equal pods running. Usually a Deployment creates it.",
    "ReplicationController": "Keeps a number of equal pods running; the predecessor of ReplicaSet.",
    "StatefulSet": "Keeps pods with fixed names and claims of their own running.",
    "DaemonSet": "Runs one pod on the node, if it fits it.",
    "ControllerRevision": "A former template of a StatefulSet or a DaemonSet. The node creates it.",
    "Namespace": "A scope for names. It exists as soon as it contains an object, even without a manifest.",
    "ServiceAccount": "An identity for pods. This node issues no tokens for it.",
    "LimitRange": "Limits and defaults for the resources of each container, pod or claim of a namespace.",
    "ResourceQuota": "Limits for what all objects of a namespace have together.",
    "PodDisruptionBudget": "How many of an application's pods an eviction must leave running.",
    "Role": "A set of permissions in a namespace.",
    "ClusterRole": "A set of permissions.",
    "RoleBinding": "Who has a role in a namespace.",
    "ClusterRoleBinding": "Who has a role.",
    "HorizontalPodAutoscaler": "Changes the number of an application's pods by their use of cpu and memory.",
    "Job": "Runs pods until as many as wanted have succeeded.",
    "CronJob": "Creates a Job at the times of a schedule.",
}

#: (type, JSON name of the field) → description
DESCRIPTIONS = parse(_TABLE) | parse(POLICIES) | parse(SERVICES) | parse(NETWORK_POLICIES) | parse(INGRESS)


def kind_description(kind: str) -> str:
    """Return the description of a kind; "" if it has none."""
    return CORE_KINDS.get(kind) or KIND_DESCRIPTIONS.get(kind, "")


def field_description(model: str, field: str) -> str:
    """Return the description of a type's field, by its JSON name; "" if it has none."""
    name = "Container" if model == "EphemeralContainer" else model
    return CORE.get((name, field)) or DESCRIPTIONS.get((name, field)) or CORE.get(("Object", field), "")
