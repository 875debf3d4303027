"""One-line descriptions of the fields of workloads, for `kubelite explain`.

Read like `manifests.types.descriptions`; a test checks that every field of every kind in WORKLOADS has one.
"""

from manifests.types.descriptions import parse

# a type, then its fields by their JSON names
_TABLE = """
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
  lastTransitionTime  When status last changed.
  lastUpdateTime  When the condition was last written.
  message  Details, for people.
  reason  Reason for the last change, as one word.
  status  True, False or Unknown.
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
  availableReplicas  Pods that have been ready for minReadySeconds.
  conditions  ReplicaFailure, if pods cannot be created or deleted.
  fullyLabeledReplicas  Pods that have all labels of the template.
  observedGeneration  The generation that this status describes.
  readyReplicas  Pods that are ready.
  replicas  Pods that exist, without terminating ones.
  terminatingReplicas  Pods that are being deleted.
ReplicaSetCondition
  lastTransitionTime  When status last changed.
  message  Details, for people.
  reason  Reason for the last change, as one word.
  status  True, False or Unknown.
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
  availableReplicas  Pods that have been ready for minReadySeconds.
  conditions  ReplicaFailure, if pods cannot be created or deleted.
  fullyLabeledReplicas  Pods that have all labels of the template.
  observedGeneration  The generation that this status describes.
  readyReplicas  Pods that are ready.
  replicas  Pods that exist, without terminating ones.
ReplicationControllerCondition
  lastTransitionTime  When status last changed.
  message  Details, for people.
  reason  Reason for the last change, as one word.
  status  True, False or Unknown.
  type  ReplicaFailure.
"""

#: kind → what it is for
KIND_DESCRIPTIONS = {
    "Deployment": "Keeps a number of equal pods running, and replaces them little by little when the template changes.",
    "ReplicaSet": "Keeps a number of equal pods running. Usually a Deployment creates it.",
    "ReplicationController": "Keeps a number of equal pods running; the predecessor of ReplicaSet.",
}

#: (type, JSON name of the field) → description
DESCRIPTIONS = parse(_TABLE)
