"""Images for the API: list, inspect and remove them, and find out which are in use."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from kubelite.kube.json import Json
from kubelite.kube.objects import WORKLOADS, source_of, template_of
from kubelite.node.cri.local import LocalCri
from kubelite.node.model.claim_names import claim_name_in
from runtime.errors import ImageError
from runtime.images.client import ImageClient
from runtime.images.store.disk import tree_size
from runtime.images.store.mounts import mounted_images
from runtime.images.store.names import last_used
from runtime.images.store.store import ImageRecord, Removed
from state.store import Store

Progress = Callable[[Json], None]


@dataclass(slots=True)
class NodeImages:
    """Image requests that depend on the node's pods."""

    root: str  # the node's state directory
    store: Store
    cri: LocalCri
    client: ImageClient
    forget: Callable[[Iterable[str]], None] = lambda _removed: None  # called with the ids of removed images

    async def in_use(self) -> set[str]:
        """Return the ids of images that containers or mounts use, or that pods or manifests name. No other task runs
        between the last check and the return, so a removal that begins at once (`PullLimits.removal`) cannot race with
        a start."""
        used = set(mounted_images())
        for record in self.store.list("Pod"):
            used |= {c.image_id for c in (await self.cri.observe(record.uid)).containers}
        return used | self._named()

    def _named(self) -> set[str]:
        """Return the ids of images that pods name, including pods that were added while containers were observed, and
        that the workloads of manifests name: a CronJob has no pod between two runs. The earlier templates of a
        Deployment, in its ReplicaSets, do not count."""
        named = [record.doc for record in self.store.list("Pod")]
        workloads = (record for kind in WORKLOADS for record in self.store.list(kind))
        named += [template_of(record.doc) for record in workloads if source_of(record)]
        names = {reference for doc in named for reference in references_of(doc)}
        return {found.id for found in map(self.cri.image, names) if found is not None}

    def images(self) -> list[Json]:
        store = self.client.store
        return [
            {**image_json(record), "shortName": store.short_name(record.reference)} for record in store.list()
        ]

    def inspect(self, text: str) -> Json:
        """Describe an image as `docker image inspect` does, with the directories of its layers."""
        store = self.client.store
        record = store.find(text)
        config = store.image_config(record)
        names = [r.reference for r in store.list() if r.id == record.id and r.reference]
        return {
            "Id": record.id,
            "RepoTags": names,
            "RepoDigests": list(record.repo_digests),
            "Digest": record.manifest_digest,
            "Created": record.created,
            "Author": config.get("author", ""),
            "Config": record.config,
            "Architecture": record.architecture,
            "Os": record.os,
            "Variant": record.variant,
            "Size": record.size,
            "RootFS": {"Type": "layers", "Layers": list(config["rootfs"]["diff_ids"])},
            "LayerDirectories": list(record.layers),
            "Unpacked": record.unpacked,
            "Metadata": {"PulledAt": record.pulled, "LastUsedAt": last_used(store, record)},
            "History": self.history(text),
        }

    def history(self, text: str) -> list[Json]:
        """Return the build steps, newest first: [{"created", "createdBy", "size", "comment", "emptyLayer"}]. `size`:
        the bytes of the step's layer as it is stored."""
        store = self.client.store
        record = store.find(text)
        sizes = [layer["size"] for layer in store.manifest(record)["layers"]]
        steps: list[Json] = []
        for entry in store.image_config(record).get("history") or []:
            empty = bool(entry.get("empty_layer"))
            steps.append(
                {
                    "created": entry.get("created", ""),
                    "createdBy": entry.get("created_by", ""),
                    "comment": entry.get("comment", ""),
                    "emptyLayer": empty,
                    "size": 0 if empty or not sizes else sizes.pop(0),
                }
            )
        for size in sizes:  # the image has more layers than history entries
            steps.append({"created": "", "createdBy": "", "comment": "", "emptyLayer": False, "size": size})
        return steps[::-1]

    def spool(self) -> IO[bytes]:
        """See `kubelite.api.node.ImagesApi`."""
        root = self.client.store.root
        return tempfile.TemporaryFile(dir=root if os.path.isdir(root) else os.path.dirname(root))

    async def remove(self, reference: str, *, force: bool) -> Json:
        """Remove a name; with an id or the last name, remove the image. Raises ImageError (ImageInUse, …)."""
        used = await self.in_use()
        with self.client.limits.removal(self._going(reference) - used):
            removed = self._forgotten(await self.client.remove(reference, in_use=tuple(used), force=force))
        return removed_json(removed)

    async def remove_unused(self, identity: str) -> Removed | None:
        """Remove an image with all its names. Return None if it is in use by now."""
        used = await self.in_use()
        if identity in used:
            return None
        with self.client.limits.removal([identity]):
            # `force` removes an image that has several names.
            return self._forgotten(await self.client.remove(identity, in_use=tuple(used), force=True))

    async def prune(self, *, every: bool, older: float, cache: bool = True) -> Json:
        """Remove unused images. `older`: only those unused for this many seconds. `cache`: build results, too."""
        before = time.time() - older if older else None
        used = await self.in_use()
        store, named = self.client.store, {r.id for r in self.client.store.list() if r.reference}
        going = {
            record.id
            for record in store.list()
            if (before is None or last_used(store, record) < before if every else record.id not in named)
        }
        with self.client.limits.removal(going - used):
            removed = await self.client.prune(in_use=used, every=every, before=before, cache=cache)
        return removed_json(self._forgotten(removed))

    def _forgotten(self, removed: Removed) -> Removed:
        """Delete what is recorded of the pulls of removed images."""
        self.forget(removed.deleted)
        return removed

    def _going(self, reference: str) -> set[str]:
        """Return the id of the image that the removal of this name deletes; none if the image has other names."""
        with contextlib.suppress(ImageError):
            record, by_name = self.client.store.look_up(reference)
            names = {r.reference for r in self.client.store.list() if r.id == record.id}
            if len(names) == 1 or not by_name:
                return {record.id}
        return set()

    async def push(self, reference: str, target: str, compression: Json, progress: Progress) -> list[Json]:
        name, digest, size = await self.client.push(
            reference, target, compression=compression, progress=progress
        )
        return [{"reference": name, "digest": digest, "size": size}]

    async def save(self, references: list[str], path: str, form: str, progress: Progress) -> list[Json]:
        return [image_json(r) for r in await self.client.save(references, path, form=form, progress=progress)]

    async def tag(self, reference: str, target: str) -> Json:
        return image_json(await self.client.tag(reference, target))

    async def repair(self, *, deep: bool) -> list[str]:
        """Repair images, and pull those again that cannot be repaired locally. Return a sentence for each."""
        done, broken = await self.client.repair(deep=deep)
        for name in broken:
            try:
                await self.client.pull(name)
                done.append(f"pulled {name} again")
            except ImageError as error:
                done.append(f"cannot repair {name}: {error}")
        return done

    async def disk_usage(self, *, verbose: bool = False) -> list[Json]:
        """Report disk usage as `docker system df`: totals of each kind, the part in use, and the reclaimable rest.

        With `verbose`, each kind but the build cache has `items`: images, containers, emptyDir volumes and claims.
        Sizes are in bytes. An image is reclaimable if `prune` of all images removes it. All of the build cache is.
        """
        used = await self.in_use()
        usage = await self.client.usage(used)
        records = {r.id: r for r in self.client.store.list()}
        sizes = {**usage["blobs"], **{f"layer:{k}": v for k, v in usage["layers"].items()}}
        known = {thing for r in records.values() for thing in _things(r)}
        built = {thing.replace("chain:", "layer:") for thing in usage["cache"]["needed"]} - known
        images: Json = {
            "type": "Images",
            "total": len(records),
            "active": len([r for r in records if r in used]),
            "size": sum(size for thing, size in sizes.items() if thing not in built) + usage["ingest"],
            "reclaimable": _reclaimable(sizes, usage["retained"]),
        }
        cache_size = sum(sizes.get(thing, 0) for thing in built) + sum(usage["cache"]["mounts"])
        cache = {
            "type": "Build Cache",
            "total": usage["cache"]["records"] + len(usage["cache"]["mounts"]),
            "active": 0,
            "size": cache_size,
            "reclaimable": cache_size,
        }
        pods = {record.uid: f"{record.namespace}/{record.name}" for record in self.store.list("Pod")}
        running = set(self.cri.running_sandboxes())
        containers, volumes = await asyncio.to_thread(self._pods_usage, running, pods)
        claims = await asyncio.to_thread(self._claims_usage, self._claims_in_use(running))
        if verbose:
            items = _image_items(list(records.values()), sizes, used)
            short = self.client.store.short_name
            images["items"] = [{**item, "shortName": short(item["reference"])} for item in items]
        else:
            del containers["items"], volumes["items"], claims["items"]
        return [images, containers, volumes, claims, cache]

    def _claims_in_use(self, running: set[str]) -> set[tuple[str, str]]:
        """Return namespace and name of the claims that running pods use."""
        pods = [record for record in self.store.list("Pod") if record.uid in running]
        return {
            (pod.namespace, claim_name_in(pod.name, volume))
            for pod in pods
            for volume in pod.doc["spec"].get("volumes") or ()
            if volume.get("persistentVolumeClaim") or volume.get("ephemeral")
        }

    def _claims_usage(self, used: set[tuple[str, str]]) -> Json:
        """Measure the directories of claims, retained ones of deleted claims included. None is removed by a prune."""
        claims: Json = {"type": "Claims", "total": 0, "active": 0, "size": 0, "reclaimable": 0, "items": []}
        for namespace in _names(f"{self.root}/claims"):
            for name in _names(f"{self.root}/claims/{namespace}"):
                size, active = tree_size(f"{self.root}/claims/{namespace}/{name}"), (namespace, name) in used
                claims["total"] += 1
                claims["active"] += active
                claims["size"] += size
                claims["items"].append({"namespace": namespace, "name": name, "size": size, "active": active})
        return claims

    def _pods_usage(self, running: set[str], pods: Mapping[str, str]) -> list[Json]:
        """Measure containers and emptyDir volumes. `pods`: uid → namespace/name."""
        nothing: Json = {"total": 0, "active": 0, "size": 0, "reclaimable": 0}
        containers: Json = {"type": "Containers", **nothing, "items": []}
        volumes: Json = {"type": "Local Volumes", **nothing, "items": []}
        for uid in _names(f"{self.root}/pods"):
            for kind, directory in (
                (containers, f"{self.root}/pods/{uid}/containers"),
                (volumes, f"{self.root}/pods/{uid}/volumes/kubernetes.io~empty-dir"),
            ):
                for name in _names(directory):
                    size, active = tree_size(f"{directory}/{name}"), uid in running
                    kind["total"] += 1
                    kind["active"] += active
                    kind["size"] += size
                    pod = pods.get(uid, uid)
                    kind["items"].append({"pod": pod, "name": name, "size": size, "active": active})
        return [containers, volumes]


def _reclaimable(sizes: Mapping[str, int], retained: Sequence[str] | None) -> int:
    """Return the bytes that pruning all unused images frees, build results aside."""
    if retained is None:
        return 0
    kept = {thing.replace("chain:", "layer:") for thing in retained}
    return sum(size for thing, size in sizes.items() if thing not in kept)


def _image_items(records: list[ImageRecord], sizes: Mapping[str, int], used: set[str]) -> list[Json]:
    """Return each image with its size in bytes: in total, shared with other images, and not shared."""
    count = Counter(thing for record in records for thing in set(_things(record)))
    items = []
    for record in records:
        things = set(_things(record))
        shared = sum(sizes.get(thing, 0) for thing in things if count[thing] > 1)
        unique = sum(sizes.get(thing, 0) for thing in things if count[thing] == 1)
        found = {"size": shared + unique, "shared": shared, "unique": unique, "active": record.id in used}
        items.append({"reference": record.reference, "id": record.id, "created": record.created, **found})
    return items


def references_of(pod: Json) -> set[str]:
    spec = pod.get("spec") or {}
    parts = [
        c for key in ("initContainers", "containers", "ephemeralContainers") for c in spec.get(key) or ()
    ]
    volumes = [v["image"].get("reference") for v in spec.get("volumes") or () if v.get("image")]
    return {str(name) for name in [*(c.get("image") for c in parts), *volumes] if name}


def _things(record: ImageRecord) -> Iterable[str]:
    layers = [f"layer:sha256:{os.path.basename(path)}" for path in record.layers]
    return [record.id, record.manifest_digest, *record.layer_digests, *layers]


def image_json(record: ImageRecord) -> Json:
    """Return the API's document of an image, without layer directories."""
    return {
        "id": record.id,
        "reference": record.reference,
        "repoDigests": list(record.repo_digests),
        "digest": record.manifest_digest,
        "size": record.size,
        "created": record.created,
        "architecture": record.architecture,
    }


def removed_json(removed: Removed) -> Json:
    return {"untagged": removed.untagged, "deleted": removed.deleted, "freed": removed.freed}


def _names(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []
