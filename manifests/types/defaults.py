"""The API server's defaulting (pkg/apis/core/v1/defaults.go of Kubernetes 1.36). Each function returns a new object.

It does not include what admission plugins add on a cluster (a service account's token, priorities, tolerations).
"""

import base64
from collections.abc import Iterator

from manifests.types.annotations import default_profiles
from manifests.types.claim import PersistentVolumeClaim, default_claim
from manifests.types.core import (
    ConfigMap,
    Container,
    ContainerPort,
    DownwardAPIVolumeFile,
    EmptyDirVolumeSource,
    HTTPGetAction,
    Pod,
    PodSecurityContext,
    PodSpec,
    Probe,
    ResourceRequirements,
    Secret,
    Volume,
)
from manifests.types.meta import Object, Quantity
from manifests.types.persistent_volume import (
    PersistentVolume,
    StorageClass,
    default_storage_class,
    default_volume,
)
from manifests.types.priority import PriorityClass, default_priority_class

FILE_MODE = 0o644  # of files in configMap, secret, downwardAPI and projected volumes
_POD_LEVEL = ("cpu", "memory")  # resources that can be set for a pod as a whole, beside hugepages-*


def default_object(obj: Object) -> Object:
    """Return a copy with its kind's defaults."""
    match obj:
        case Pod():
            return default_pod(obj)
        case Secret():
            return default_secret(obj)
        case PersistentVolumeClaim():
            return default_claim(obj)
        case ConfigMap():
            return default_config_map(obj)
        case PersistentVolume():
            return default_volume(obj)
        case StorageClass():
            return default_storage_class(obj)
        case PriorityClass():
            return default_priority_class(obj)
    obj = obj.model_copy(deep=True)
    if obj.namespaced:
        obj.metadata.namespace = obj.metadata.namespace or "default"
    obj.set_defaults()
    return obj


def default_parsed(obj: Object) -> Object:
    """Return the object with its kind's defaults. Nobody else may hold it: a pod is not copied, because that takes
    longer than to parse it."""
    if not isinstance(obj, Pod):
        return default_object(obj)
    _set_pod_defaults(obj)
    return obj


def default_pod(pod: Pod) -> Pod:
    """Return a copy with all defaults: containers, ports, volumes, resources and the pod's own fields. Idempotent."""
    pod = pod.model_copy(deep=True)
    _set_pod_defaults(pod)
    return pod


def _set_pod_defaults(pod: Pod) -> None:
    pod.metadata.namespace = pod.metadata.namespace or "default"
    spec = pod.spec
    default_profiles(pod)
    default_template(spec)
    for container in every_container(spec):
        if container.resources is not None:
            _requests(container.resources)
        for port in container.ports if spec.host_network else ():
            port.host_port = port.host_port or port.container_port
    _pod_requests(spec)
    if spec.enable_service_links is None:
        spec.enable_service_links = True


def default_template(spec: PodSpec) -> None:
    """Fill in, in place, the defaults that a PodSpec has in a template too: SetDefaults_PodSpec and those of its parts.

    The other defaults of a pod (SetDefaults_Pod: requests from limits, ports of the host's network, enableServiceLinks)
    are filled in when a pod is made from the template. Otherwise a template would differ from what the user wrote in
    fields whose defaults depend on others.
    """
    for container in every_container(spec):
        _container(container)
    if spec.resources is not None:
        _round(spec.resources)
    for volume in spec.volumes:
        _volume(volume)
    _pod_spec(spec)


def default_secret(secret: Secret) -> Secret:
    """Return a copy with defaults. `stringData` is write-only: it is merged into `data` and takes precedence."""
    secret = secret.model_copy(deep=True)
    secret.metadata.namespace = secret.metadata.namespace or "default"
    secret.type = secret.type or "Opaque"
    if secret.string_data:
        plain = {key: base64.b64encode(text.encode()).decode() for key, text in secret.string_data.items()}
        secret.data = {**secret.data, **plain}
        secret.string_data = {}
    return secret


def default_config_map(config_map: ConfigMap) -> ConfigMap:
    """Return a copy with a namespace, the only default of a ConfigMap."""
    config_map = config_map.model_copy(deep=True)
    config_map.metadata.namespace = config_map.metadata.namespace or "default"
    return config_map


def every_container(spec: PodSpec) -> Iterator[Container]:
    """Yield init containers, containers and ephemeral containers, in this order."""
    yield from spec.init_containers
    yield from spec.containers
    yield from spec.ephemeral_containers


def default_pull_policy(image: str | None) -> str:
    """Return Always for :latest or an image with neither tag nor digest, else IfNotPresent.

    Kubernetes: SetDefaults_Container and parsers.ParseImageName.
    """
    name, _, digest = (image or "").rpartition("/")[2].partition("@")
    _, _, tag = name.partition(":")
    return "Always" if tag == "latest" or not (tag or digest) else "IfNotPresent"


def _pod_spec(spec: PodSpec) -> None:
    spec.restart_policy = spec.restart_policy or "Always"
    spec.dns_policy = spec.dns_policy or "ClusterFirst"
    spec.scheduler_name = spec.scheduler_name or "default-scheduler"
    if spec.termination_grace_period_seconds is None:
        spec.termination_grace_period_seconds = 30
    if spec.security_context is None:
        spec.security_context = PodSecurityContext()
    # serviceAccount is the old name of serviceAccountName; the API keeps both equal (pkg/apis/core/v1/conversion.go).
    spec.service_account_name = spec.service_account_name or spec.service_account
    spec.service_account = spec.service_account_name


def _container(container: Container) -> None:
    container.image_pull_policy = container.image_pull_policy or default_pull_policy(container.image)
    container.termination_message_path = container.termination_message_path or "/dev/termination-log"
    container.termination_message_policy = container.termination_message_policy or "File"
    for port in container.ports:
        _port(port)
    for env in container.env:
        field = env.value_from.field_ref if env.value_from else None
        if field is not None:
            field.api_version = field.api_version or "v1"
    if container.resources is not None:
        _round(container.resources)
    for probe in (container.liveness_probe, container.readiness_probe, container.startup_probe):
        if probe is not None:
            _probe(probe)
    hooks = (container.lifecycle.post_start, container.lifecycle.pre_stop) if container.lifecycle else ()
    for hook in hooks:
        if hook is not None and hook.http_get is not None:
            _http_get(hook.http_get)


def _port(port: ContainerPort) -> None:
    port.protocol = port.protocol or "TCP"


def _http_get(action: HTTPGetAction) -> None:
    action.path = action.path or "/"
    action.scheme = action.scheme or "HTTP"


def _probe(probe: Probe) -> None:
    probe.timeout_seconds = probe.timeout_seconds or 1
    probe.period_seconds = probe.period_seconds or 10
    probe.success_threshold = probe.success_threshold or 1
    probe.failure_threshold = probe.failure_threshold or 3
    if probe.http_get is not None:
        _http_get(probe.http_get)


def _round(resources: ResourceRequirements) -> None:
    """Round amounts up to a thousandth (SetDefaults_ResourceList)."""
    resources.limits = {name: amount.rounded_to_milli() for name, amount in resources.limits.items()}
    resources.requests = {name: amount.rounded_to_milli() for name, amount in resources.requests.items()}


def _requests(resources: ResourceRequirements) -> None:
    """A limit without a request becomes the request."""
    resources.requests = {**resources.limits, **resources.requests}


def _pod_requests(spec: PodSpec) -> None:
    """Set the pod's own requests: as written, else its containers' sum, else its limits (defaultPodRequests)."""
    resources = spec.resources
    if resources is None or not (resources.limits or resources.requests):
        return
    requests = dict(resources.requests)
    for name, amount in {**resources.limits, **aggregate_requests(spec)}.items():
        if name in _POD_LEVEL or name.startswith("hugepages-"):
            requests.setdefault(name, amount)
    resources.requests = requests


def aggregate_requests(spec: PodSpec) -> dict[str, Quantity]:
    """Return the total of the containers' requests for each resource. It is the larger of two amounts: the sum over
    containers and sidecars, and the largest sum of an init container and the sidecars started before it.

    Kubernetes: resourcehelper.AggregateContainerRequests.
    """
    running: dict[str, Quantity] = {}
    peak: dict[str, Quantity] = {}
    for container in spec.init_containers:
        asked = container.resources.requests if container.resources else {}
        if container.restart_policy == "Always":
            _add(running, asked)
            _grow(peak, running)
        else:
            together = dict(running)
            _add(together, asked)
            _grow(peak, together)
    for container in spec.containers:
        _add(running, container.resources.requests if container.resources else {})
    _grow(running, peak)
    return running


def _add(total: dict[str, Quantity], more: dict[str, Quantity]) -> None:
    for name, amount in more.items():
        total[name] = total[name] + amount if name in total else amount


def _grow(total: dict[str, Quantity], other: dict[str, Quantity]) -> None:
    for name, amount in other.items():
        total[name] = max(total[name], amount) if name in total else amount


_SOURCE_DEFAULTS: dict[str, dict[str, object]] = {
    "config_map": {"default_mode": FILE_MODE},
    "secret": {"default_mode": FILE_MODE},
    "downward_api": {"default_mode": FILE_MODE},
    "projected": {"default_mode": FILE_MODE},
    "host_path": {"type": ""},
    "iscsi": {"iscsi_interface": "default"},
    "rbd": {"pool": "rbd", "user": "admin", "keyring": "/etc/ceph/keyring"},
    "azure_disk": {"caching_mode": "ReadWrite", "kind": "Shared", "fs_type": "ext4", "read_only": False},
    "scale_io": {"storage_mode": "ThinProvisioned", "fs_type": "xfs"},
}


def _volume(volume: Volume) -> None:
    """Apply the defaults of the volume's source. A volume without a source is an emptyDir."""
    if not volume.sources():
        volume.empty_dir = EmptyDirVolumeSource()
    for name, values in _SOURCE_DEFAULTS.items():
        source = getattr(volume, name)
        for attribute, value in values.items() if source is not None else ():
            if getattr(source, attribute) is None:
                setattr(source, attribute, value)
    if volume.image is not None:
        volume.image.pull_policy = volume.image.pull_policy or default_pull_policy(volume.image.reference)
    if volume.downward_api is not None:
        _downward_items(volume.downward_api.items)
    for projection in volume.projected.sources if volume.projected else ():
        token = projection.service_account_token
        if token is not None and token.expiration_seconds is None:
            token.expiration_seconds = 3600
        if projection.downward_api is not None:
            _downward_items(projection.downward_api.items)


def _downward_items(items: list[DownwardAPIVolumeFile]) -> None:
    for item in items:
        if item.field_ref is not None:
            item.field_ref.api_version = item.field_ref.api_version or "v1"
