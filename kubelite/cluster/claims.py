"""Finds the volumes that the claims of a cluster's pod are bound to."""

from __future__ import annotations

from collections.abc import Mapping

from kubelite.cluster.client import ClusterClient, Refusal, Unreachable
from kubelite.cluster.content import ClusterContent
from kubelite.cluster.decide.references import claims, volume_of
from kubelite.cluster.source import NotYet, Refused
from kubelite.kube.json import Json

ARRIVE = 3.0  # seconds that a new pod waits for what it refers to


class ClusterVolumes:
    """Waits for the Services, without which no container of the cluster starts, and for the claims of a pod."""

    def __init__(self, client: ClusterClient, content: ClusterContent) -> None:
        self._client = client
        self._content = content

    async def of(self, pod: Json) -> Mapping[str, Json]:
        """Return name of the pod's volume → the volume that its claim is bound to. Raises NotYet, Refused."""
        await self._content.services.wait()
        found: dict[str, Json] = {}
        for name, (claim, read_only) in claims(pod).items():
            found[name] = await self._volume(pod["metadata"]["namespace"], claim, read_only=read_only)
        await self._content.wait(pod, ARRIVE)
        return found

    async def _volume(self, namespace: str, name: str, *, read_only: bool) -> Json:
        try:
            claim = await self._client.get(f"/api/v1/namespaces/{namespace}/persistentvolumeclaims/{name}")
            bound = claim["spec"].get("volumeName")
            if (claim.get("status") or {}).get("phase") != "Bound" or not bound:
                raise NotYet(f"persistentvolumeclaim {name} is not bound")
            volume = await self._client.get(f"/api/v1/persistentvolumes/{bound}")
        except (Unreachable, Refusal) as error:
            raise NotYet(f"persistentvolumeclaim {name} cannot be read: {error}") from error
        made = volume_of(claim, volume, read_only=read_only)
        if isinstance(made, str):
            raise Refused("UnsupportedVolume", f"Pod was rejected: {made}")
        return made
