"""Descriptions of the fields of namespaces, limits, budgets, roles and autoscalers (see `descriptions`)."""

#: Fields that the conditions of all kinds have.
CONDITION = """\
  lastTransitionTime  When status last changed.
  message  Details, for people.
  reason  Reason for the last change, as one word.
  status  True, False or Unknown."""

POLICIES = f"""
Namespace
  spec  Finalizers.
  status  The current state; written by the node, ignored in a manifest.
NamespaceSpec
  finalizers  What must finish before the namespace is gone.
NamespaceStatus
  conditions  What a deletion still waits for.
  phase  Active or Terminating.
NamespaceCondition
{CONDITION}
  type  Type of the condition.
ServiceAccount
  automountServiceAccountToken  Ignored: this node mounts no tokens.
  imagePullSecrets  Secrets with registry credentials, for the pods that use the account.
  secrets  Ignored: this node issues no tokens.
LocalObjectReference
  name  Name of the object.
LimitRange
  spec  The limits of the namespace.
LimitRangeSpec
  limits  Limits, one for each type.
LimitRangeItem
  default  Limits of containers that set none; default: max.
  defaultRequest  Requests of containers that set none; default: default, else min.
  max  Most that a container, a pod or a claim may have.
  maxLimitRequestRatio  How many times the request the limit may be.
  min  Least that a container, a pod or a claim may have.
  type  Container, Pod or PersistentVolumeClaim.
ResourceQuota
  spec  The limits of the namespace as a whole.
  status  What is used; written by the node, ignored in a manifest.
ResourceQuotaSpec
  hard  Most that all objects may have together: requests.cpu, limits.memory, pods, count/deployments.apps, …
  scopeSelector  Pods that count, by scope and value.
  scopes  Pods that count: those in all of these scopes.
ResourceQuotaStatus
  hard  The limits.
  used  What is used of each.
ScopeSelector
  matchExpressions  Requirements; all must hold.
ScopedResourceSelectorRequirement
  operator  In, NotIn, Exists or DoesNotExist.
  scopeName  Terminating, NotTerminating, BestEffort, NotBestEffort, PriorityClass, …
  values  Values for In and NotIn, like names of priority classes.
PodDisruptionBudget
  spec  How many pods may be missing.
  status  The current state; written by the node, ignored in a manifest.
PodDisruptionBudgetSpec
  maxUnavailable  How many pods, or which share, an eviction may leave missing.
  minAvailable  How many pods, or which share, an eviction must leave ready.
  selector  Labels of the pods. An empty selector selects all of the namespace.
  unhealthyPodEvictionPolicy  IfHealthyBudget (the default). AlwaysAllow: evict pods that are not ready.
PodDisruptionBudgetStatus
  conditions  DisruptionAllowed.
  currentHealthy  Pods that are ready.
  desiredHealthy  Least number of ready pods.
  disruptedPods  Pods whose eviction is under way, with the time it began.
  disruptionsAllowed  How many pods may be evicted now.
  expectedPods  Pods that the budget counts.
  observedGeneration  The generation that this status describes.
Condition
{CONDITION}
  observedGeneration  The generation that the condition describes.
  type  Type of the condition.
Role
  rules  What is allowed.
ClusterRole
  aggregationRule  Other roles whose rules this one has.
  rules  What is allowed.
AggregationRule
  clusterRoleSelectors  Labels of the other roles.
PolicyRule
  apiGroups  Groups of the resources; "" is the group of pods.
  nonResourceURLs  Paths that are no resources.
  resourceNames  Names of the objects; none: all.
  resources  Types of objects, in the plural.
  verbs  get, list, watch, create, update, patch, delete, …
RoleBinding
  roleRef  The role.
  subjects  Who has it.
ClusterRoleBinding
  roleRef  The role.
  subjects  Who has it.
RoleRef
  apiGroup  rbac.authorization.k8s.io.
  kind  Role or ClusterRole.
  name  Name of the role.
Subject
  apiGroup  rbac.authorization.k8s.io for User and Group, empty for ServiceAccount.
  kind  ServiceAccount, User or Group.
  name  Name of the subject.
  namespace  Namespace of a ServiceAccount.
HorizontalPodAutoscaler
  spec  The desired state.
  status  The current state; written by the node, ignored in a manifest.
HorizontalPodAutoscalerSpec
  behavior  How fast the number of pods may grow and shrink.
  maxReplicas  Most pods.
  metrics  What decides: of several metrics the one that wants the most pods; default: 80% of the requested cpu.
  minReplicas  Least pods; default 1.
  scaleTargetRef  What is scaled: a Deployment, for example.
HorizontalPodAutoscalerSpecV1
  maxReplicas  Most pods.
  minReplicas  Least pods; default 1.
  scaleTargetRef  What is scaled: a Deployment, for example.
  targetCPUUtilizationPercentage  How many percent of the requested cpu the pods should use; default 80.
HorizontalPodAutoscalerBehavior
  scaleDown  Rules for fewer pods. Default: as many as needed, after a stabilization window of 300 seconds.
  scaleUp  Rules for more pods. Default: 4 pods or 100 % every 15 seconds, the larger, without a window.
HPAScalingRules
  policies  Most changes within a period.
  selectPolicy  Max (the default) or Min of the policies; Disabled: no change in this direction.
  stabilizationWindowSeconds  The most cautious recommendation of so many seconds applies, at most 3600.
  tolerance  Deviation from the target that changes nothing; default 0.1.
HPAScalingPolicy
  periodSeconds  Length of the period, at most 1800 seconds.
  type  Pods or Percent.
  value  How many pods, or percent of them, may come or go in the period.
CrossVersionObjectReference
  kind  Kind of the object.
  name  Name of the object.
MetricSpec
  containerResource  cpu or memory of one container of each pod.
  external  A metric from outside; not supported on this node.
  object  A metric of another object; not supported on this node.
  pods  A metric that the pods report; not supported on this node.
  resource  cpu or memory of the pods.
  type  Resource, ContainerResource, Pods, Object or External.
MetricTarget
  averageUtilization  Percent of the requests, on average over the pods.
  averageValue  Amount for each pod, on average.
  type  Utilization, AverageValue or Value.
  value  Amount in total.
MetricIdentifier
  name  Name of the metric.
  selector  Labels of the metric.
ResourceMetricSource
  name  cpu or memory.
  target  The amount that is aimed at.
ContainerResourceMetricSource
  container  Name of the container.
  name  cpu or memory.
  target  The amount that is aimed at.
PodsMetricSource
  metric  The metric.
  target  The amount that is aimed at.
ObjectMetricSource
  describedObject  The object.
  metric  The metric.
  target  The amount that is aimed at.
ExternalMetricSource
  metric  The metric.
  target  The amount that is aimed at.
HorizontalPodAutoscalerStatus
  conditions  ScalingActive, AbleToScale and ScalingLimited.
  currentMetrics  The last values of the metrics.
  currentReplicas  Number of pods.
  desiredReplicas  Number of pods that the metrics call for.
  lastScaleTime  When the number was last changed.
  observedGeneration  The generation that this status describes.
HorizontalPodAutoscalerStatusV1
  currentCPUUtilizationPercentage  How many percent of the requested cpu the pods use.
  currentReplicas  Number of pods.
  desiredReplicas  Number of pods that the metrics call for.
  lastScaleTime  When the number was last changed.
  observedGeneration  The generation that this status describes.
HorizontalPodAutoscalerCondition
{CONDITION}
  type  ScalingActive, AbleToScale or ScalingLimited.
MetricStatus
  containerResource  cpu or memory of one container of each pod.
  external  A metric from outside.
  object  A metric of another object.
  pods  A metric that the pods report.
  resource  cpu or memory of the pods.
  type  Resource, ContainerResource, Pods, Object or External.
MetricValueStatus
  averageUtilization  Percent of the requests, on average over the pods.
  averageValue  Amount for each pod, on average.
  value  Amount in total.
ResourceMetricStatus
  current  The last value.
  name  cpu or memory.
ContainerResourceMetricStatus
  container  Name of the container.
  current  The last value.
  name  cpu or memory.
PodsMetricStatus
  current  The last value.
  metric  The metric.
ObjectMetricStatus
  current  The last value.
  describedObject  The object.
  metric  The metric.
ExternalMetricStatus
  current  The last value.
  metric  The metric.
"""
