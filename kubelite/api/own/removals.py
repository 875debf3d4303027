"""What a person should know when documents are removed from the manifests."""

from __future__ import annotations

import os
from collections.abc import Sequence

from kubelite.api.node import NodeApi
from kubelite.kube.objects import NAMESPACE
from kubelite.sources import edits


def missed(node: NodeApi, gone: Sequence[edits.Key]) -> list[str]:
    """Say which pods need the ConfigMaps and Secrets that are deleted, unless they are deleted, too."""
    said = []
    for kind, namespace, name in gone:
        if kind not in ("ConfigMap", "Secret"):
            continue
        from kubelite.kube.content_users import users_of

        pods = [r.doc for r in node.store.list("Pod", namespace) if ("Pod", namespace, r.name) not in gone]
        if users := users_of(kind, name, pods):
            which = "pods" if len(users) > 1 else "pod"
            said.append(
                f"{which} {', '.join(users)} in namespace {namespace} cannot start containers without {kind} {name}; "
                "containers that run go on"
            )
    return said


def staying(node: NodeApi, gone: Sequence[edits.Key]) -> list[str]:
    """Say which namespaces lose their document and stay, because other documents name them."""
    said, left = [], {"/".join(part for part in (key[0].lower(), *key[1:]) if part) for key in gone}
    for _, _, name in (key for key in gone if key.kind == NAMESPACE):
        files = {
            os.path.basename(entry["file"])
            for entry in node.manifests()
            for text in entry["objects"]
            if text.split("/")[1:-1] == [name] and text not in left
        }
        if files:
            where = ", ".join(sorted(files))
            said.append(f"namespace {name} stays while manifests define objects in it: {where}")
    return said
