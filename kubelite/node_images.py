"""The node's images as the API sees them: what uses them, what they look like, what they take."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass

from kubelite.api.node import Json, Progress
from kubelite.node.local_cri import LocalCri
from runtime.errors import ImageError
from runtime.images.client import ImageClient
from runtime.images.content import tree_size
from runtime.images.mounts import mounted_images
from runtime.images.names import last_used
from runtime.images.store import ImageRecord, Removed
from state.store import Store


@dataclass(slots=True)
class NodeImages:
    """Image requests that need to know the node's pods."""

    root: str  # the node's
    store: Store
    cri: LocalCri
    client: ImageClient

    async def in_use(self) -> set[str]:
        """Ids of images that containers have, that a pod is about to use, and that are mounted."""
        used = set(mounted_images())
        for record in self.store.list("Pod"):
            used |= {c.image_id for c in (await self.cri.observe(record.uid)).containers}
            for reference in references_of(record.doc):
                found = self.cri.image(reference)
                if found is not None:
                    used.add(found.id)
        return used

    def images(self) -> list[Json]:
        return [image_json(record) for record in self.client.store.list()]

    def inspect(self, text: str) -> Json:
        """As `docker image inspect`, with where the layers are."""
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
        """The newest step first: {"created", "createdBy", "size", "comment", "emptyLayer"}; sizes as stored."""
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
        for size in sizes:  # an image whose history is shorter than its layers
            steps.append({"created": "", "createdBy": "", "comment": "", "emptyLayer": False, "size": size})
        return steps[::-1]

    async def remove(self, reference: str, *, force: bool) -> Json:
        used = set(mounted_images())
        for record in self.store.list("Pod"):
            used |= {c.image_id for c in (await self.cri.observe(record.uid)).containers}
        return removed_json(await self.client.remove(reference, in_use=tuple(used), force=force))

    async def prune(self, *, every: bool, older: float) -> Json:
        """`older`: only those not used for so many seconds."""
        before = time.time() - older if older else None
        return removed_json(await self.client.prune(in_use=await self.in_use(), every=every, before=before))

    async def push(self, reference: str, target: str, progress: Progress) -> list[Json]:
        name, digest = await self.client.push(reference, target, progress=progress)
        size = os.stat(self.client.store.blob_path(digest)).st_size
        return [{"reference": name, "digest": digest, "size": size}]

    async def save(self, references: list[str], path: str, form: str, progress: Progress) -> list[Json]:
        return [image_json(r) for r in await self.client.save(references, path, form=form, progress=progress)]

    async def tag(self, reference: str, target: str) -> Json:
        return image_json(await self.client.tag(reference, target))

    async def repair(self, *, deep: bool) -> list[str]:
        """Mend what can be mended here, pull again what cannot; sentences of what was done and what was not."""
        done, broken = await self.client.repair(deep=deep)
        for name in broken:
            try:
                await self.client.pull(name)
                done.append(f"pulled {name} again")
            except ImageError as error:
                done.append(f"could not mend {name}: {error}")
        return done

    async def disk_usage(self) -> list[Json]:
        """As `docker system df`: what there is of each kind, what is in use, what removing the rest would free."""
        usage = await self.client.usage()
        used = await self.in_use()
        records = {r.id: r for r in self.client.store.list()}
        needed = {thing for r in records.values() if r.id in used for thing in _things(r)}
        sizes = {**usage["blobs"], **{f"layer:{k}": v for k, v in usage["layers"].items()}}
        images = {
            "type": "Images",
            "total": len(records),
            "active": len([r for r in records if r in used]),
            "size": sum(sizes.values()) + usage["ingest"],
            "reclaimable": sum(size for thing, size in sizes.items() if thing not in needed),
        }
        return [images, *await asyncio.to_thread(self._pods_usage, set(self.cri.living()))]

    def _pods_usage(self, living: set[str]) -> list[Json]:
        containers: Json = {"type": "Containers", "total": 0, "active": 0, "size": 0, "reclaimable": 0}
        volumes: Json = {"type": "Local Volumes", "total": 0, "active": 0, "size": 0, "reclaimable": 0}
        for uid in _names(f"{self.root}/pods"):
            for kind, directory in (
                (containers, f"{self.root}/pods/{uid}/containers"),
                (volumes, f"{self.root}/pods/{uid}/volumes/kubernetes.io~empty-dir"),
            ):
                for name in _names(directory):
                    size = tree_size(f"{directory}/{name}")
                    kind["total"] += 1
                    kind["active"] += uid in living
                    kind["size"] += size
        return [containers, volumes]


def references_of(pod: Json) -> set[str]:
    spec = pod.get("spec") or {}
    return {
        str(c["image"])
        for key in ("initContainers", "containers")
        for c in spec.get(key) or ()
        if c.get("image")
    }


def _things(record: ImageRecord) -> Iterable[str]:
    layers = [f"layer:sha256:{os.path.basename(path)}" for path in record.layers]
    return [record.id, record.manifest_digest, *record.layer_digests, *layers]


def image_json(record: ImageRecord) -> Json:
    """The image as the API shows it: camelCase, without layer directories."""
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
