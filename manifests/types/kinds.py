"""The kinds of Kubernetes by name, with the API versions that serve or served them, oldest first.

The list distinguishes a kind that this node does not run from a misspelt one. Kinds of removed API versions are
included, because manifests still use them.
"""

_TABLE = """
v1: Binding ComponentStatus Endpoints Event LimitRange Namespace Node PersistentVolume PersistentVolumeClaim PodTemplate
    ReplicationController ResourceQuota Service ServiceAccount
extensions/v1beta1: DaemonSet Deployment Ingress NetworkPolicy PodSecurityPolicy ReplicaSet
apps/v1beta1: ControllerRevision Deployment StatefulSet
apps/v1beta2: ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet
apps/v1: ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet
batch/v1beta1: CronJob
batch/v1: CronJob Job
autoscaling/v2beta1: HorizontalPodAutoscaler
autoscaling/v2beta2: HorizontalPodAutoscaler
autoscaling/v1: HorizontalPodAutoscaler Scale
autoscaling/v2: HorizontalPodAutoscaler
policy/v1beta1: PodDisruptionBudget PodSecurityPolicy
policy/v1: Eviction PodDisruptionBudget
networking.k8s.io/v1beta1: Ingress IngressClass IPAddress ServiceCIDR
networking.k8s.io/v1: Ingress IngressClass IPAddress NetworkPolicy ServiceCIDR
gateway.networking.k8s.io/v1: Gateway GatewayClass GRPCRoute HTTPRoute
rbac.authorization.k8s.io/v1beta1: ClusterRole ClusterRoleBinding Role RoleBinding
rbac.authorization.k8s.io/v1: ClusterRole ClusterRoleBinding Role RoleBinding
storage.k8s.io/v1beta1: CSIDriver CSINode StorageClass VolumeAttachment VolumeAttributesClass
storage.k8s.io/v1: CSIDriver CSINode CSIStorageCapacity StorageClass VolumeAttachment VolumeAttributesClass
scheduling.k8s.io/v1alpha1: PriorityClass Workload
scheduling.k8s.io/v1alpha2: PodGroup Workload
scheduling.k8s.io/v1beta1: PriorityClass
scheduling.k8s.io/v1: PriorityClass
node.k8s.io/v1beta1: RuntimeClass
node.k8s.io/v1: RuntimeClass
coordination.k8s.io/v1: Lease
discovery.k8s.io/v1: EndpointSlice
events.k8s.io/v1: Event
certificates.k8s.io/v1beta1: ClusterTrustBundle PodCertificateRequest
certificates.k8s.io/v1: CertificateSigningRequest
admissionregistration.k8s.io/v1beta1: MutatingAdmissionPolicy MutatingAdmissionPolicyBinding ValidatingAdmissionPolicy
    ValidatingAdmissionPolicyBinding
admissionregistration.k8s.io/v1: MutatingAdmissionPolicy MutatingAdmissionPolicyBinding MutatingWebhookConfiguration
    ValidatingAdmissionPolicy ValidatingAdmissionPolicyBinding ValidatingWebhookConfiguration
apiextensions.k8s.io/v1beta1: CustomResourceDefinition
apiextensions.k8s.io/v1: CustomResourceDefinition
apiregistration.k8s.io/v1: APIService
flowcontrol.apiserver.k8s.io/v1: FlowSchema PriorityLevelConfiguration
resource.k8s.io/v1alpha2: ResourceClaim ResourceClaimTemplate ResourceClass
resource.k8s.io/v1alpha3: DeviceClass DeviceTaintRule ResourceClaim ResourceClaimTemplate ResourceSlice
resource.k8s.io/v1beta1: DeviceClass ResourceClaim ResourceClaimTemplate ResourceSlice
resource.k8s.io/v1beta2: DeviceClass DeviceTaintRule ResourceClaim ResourceClaimTemplate ResourceSlice
resource.k8s.io/v1: DeviceClass ResourceClaim ResourceClaimTemplate ResourceSlice
authentication.k8s.io/v1: SelfSubjectReview TokenRequest TokenReview
authorization.k8s.io/v1: LocalSubjectAccessReview SelfSubjectAccessReview SelfSubjectRulesReview SubjectAccessReview
kustomize.config.k8s.io/v1beta1: Component Kustomization
kubelet.config.k8s.io/v1beta1: KubeletConfiguration
kubeadm.k8s.io/v1beta4: ClusterConfiguration InitConfiguration JoinConfiguration
"""


def _parse(table: str) -> dict[str, list[str]]:
    kinds: dict[str, list[str]] = {}
    version = ""
    for word in table.split():
        if word.endswith(":"):
            version = word.removesuffix(":")
        else:
            kinds.setdefault(word, []).append(version)
    return kinds


KNOWN_KINDS = _parse(_TABLE)


def api_versions_of(kind: str) -> list[str]:
    """Return the API versions that serve or served a kind, newest last; empty if Kubernetes has no such kind."""
    return KNOWN_KINDS.get(kind, [])


#: Kinds that configure an API server, and what they do not do here, where objects come from files.
_OF_API_SERVERS = {
    "APIService": "kubelite serves no API of another server",
    "FlowSchema": "the requests of clients have no priority levels",
    "MutatingWebhookConfiguration": "no webhook is called",
    "PriorityLevelConfiguration": "the requests of clients have no priority levels",
    "ValidatingWebhookConfiguration": "no webhook is called",
}


def of_api_server(version: str, kind: str) -> str:
    """Return what an object that configures an API server does not do here, as a sentence; "" for other objects."""
    groups = {one.partition("/")[0] for one in api_versions_of(kind)}
    if kind not in _OF_API_SERVERS or version.partition("/")[0] not in groups:
        return ""
    return f"{kind} configures an API server: {_OF_API_SERVERS[kind]}, and this document is ignored"
