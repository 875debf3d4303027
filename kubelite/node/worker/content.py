"""Where the values of a pod's environment and volumes come from."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from kubelite.kube.objects import is_of_cluster
from kubelite.node.model.cri import Cri
from kubelite.node.model.errors import ConfigError
from kubelite.node.model.node_config import NodeConfig
from kubelite.node.spec import env, volume_plans
from kubelite.node.spec.cluster_objects import TOKEN, every_for, find_for, token_asked, token_name
from kubelite.node.spec.tokens import TokenSource
from kubelite.node.storage import mounts
from manifests.types.core import Pod, ServiceAccountTokenProjection, Volume


class Services(Protocol):
    """The services and settings of the node that give pods their content."""

    @property
    def cri(self) -> Cri: ...
    @property
    def config(self) -> NodeConfig: ...
    @property
    def find(self) -> env.Find: ...
    @property
    def every(self) -> Callable[[str], Iterable[Mapping[str, Any]]]: ...
    @property
    def tokens(self) -> TokenSource: ...


def sources_of(node: Services, pod: Pod, ips: Sequence[str] = ()) -> env.Sources:
    config = node.config
    return env.Sources(
        find_for(pod, node.find),
        config,
        tuple(ips),
        every_for(pod, node.every),
        node.cri.image,
        lambda volume, path: _env_file(pod, volume, path, node),
        lambda volume, wanted: _token(pod, volume, wanted, node),
    )


def _env_file(pod: Pod, volume: str, path: str, node: Services) -> str | None:
    """Return the text of a file in an emptyDir volume. The path cannot leave the volume."""
    found = next((v for v in pod.spec.volumes if v.name == volume), None)
    if found is None or found.empty_dir is None:
        raise ConfigError(f'env: fileKeyRef: volume "{volume}" is not an emptyDir of the pod')
    directory = node.config.volume_dir(pod.metadata.uid or "", "kubernetes.io~empty-dir", volume)
    return mounts.read_beneath(directory, path)


def _token(pod: Pod, volume: Volume, wanted: ServiceAccountTokenProjection, node: Services) -> str:
    """Return the token for a file of a volume: the one that it has, unless that is due. A volume that an older version
    set up on the disk gets none, because tokens are kept in memory. A pod of a cluster has the cluster's token."""
    if is_of_cluster(pod.metadata.annotations):
        return _cluster_token(pod, wanted, node)
    directory = volume_plans.content_dir(volume, pod.metadata.uid or "", node.config)
    if not os.path.isdir(directory):
        return node.tokens.token(pod, wanted, "")
    if not os.path.ismount(directory):
        return ""
    try:
        current = mounts.read_beneath(directory, wanted.path) or ""
    except ConfigError:
        current = ""
    return node.tokens.token(pod, wanted, current)


def _cluster_token(pod: Pod, wanted: ServiceAccountTokenProjection, node: Services) -> str:
    """Return the token that the cluster has issued for a pod. Raises ConfigError."""
    name = token_name(pod.metadata.uid or "", token_asked(wanted))
    found = find_for(pod, node.find)(TOKEN, pod.metadata.namespace or "default", name)
    if found is None:
        raise ConfigError("failed to fetch token: the cluster has not issued it yet")
    return str(found["token"])
