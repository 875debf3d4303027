"""Commands of kubectl, docker and podman that kubelite lacks, each with its equivalent."""

from __future__ import annotations

from collections.abc import Iterable

from kubelite.cli.names import nearest

_FILES = "edit the manifest's file (`kubelite edit POD`) or `kubelite apply -f FILE`"
_RESTART = "`kubelite rollout restart POD` recreates it; `kubelite delete -f FILE` deletes it for good"
_NODE = "`kubelite node label|taint|cordon|uncordon`"
_NONE = "kubelite runs single pods, not replicas: each pod has its own manifest"

#: A command of kubectl, docker or podman → the equivalent.
ELSEWHERE = {
    "replace": _FILES,
    "patch": _FILES,
    "set": _FILES,
    "label": f"{_FILES}; for the node, `kubelite node label`",
    "annotate": _FILES,
    "api-versions": "v1; `kubelite api-resources` lists its types",
    "cluster-info": "`kubelite get nodes -o wide`, `kubelite version`",
    "info": "`kubelite get nodes -o wide`, `kubelite version`",
    "config": "select a daemon with --socket or KUBELITE_SOCKET; the client has no other configuration",
    "cordon": _NODE,
    "uncordon": _NODE,
    "taint": _NODE,
    "drain": f"`kubelite node cordon`, then `kubelite delete pod --all`; {_NODE}",
    "scale": _NONE,
    "autoscale": _NONE,
    "expose": f"{_NONE}; a container's ports[].hostPort exposes its port on the machine",
    "ps": "`kubelite get pods -A`, `kubelite top containers -A`",
    "start": _RESTART,
    "stop": _RESTART,
    "restart": _RESTART,
    "kill": _RESTART,
    "rm": "`kubelite delete -f FILE`; images: `kubelite rmi IMAGE`",
    "import": "`kubelite load ARCHIVE`",
    "export": "`kubelite exec POD -- tar c / > FILE`; images: `kubelite save`",
    "volume": "`kubelite get pvc`",
    "system": "`kubelite df`, `kubelite image prune`, `kubelite doctor`",
}


def unknown_command(word: str, known: Iterable[str]) -> str:
    """Return the error message for an unknown command."""
    instead = ELSEWHERE.get(word)
    if instead is None:
        return f'unknown command "{word}"{nearest(word, known)}'
    return f'kubelite has no command "{word}": {instead}'
