"""What people type who know kubectl, docker or podman: for commands that are not here, what does the same."""

from __future__ import annotations

from collections.abc import Iterable

from kubelite.cli.names import nearest

_FILES = "edit the manifest's file (`kubelite edit POD`) or `kubelite apply -f FILE`"
_RESTART = "`kubelite rollout restart POD` makes it anew; `kubelite delete -f FILE` ends it for good"
_NODE = "`kubelite node label|taint|cordon|uncordon`"
_NONE = "there are pods, no sets of them: each pod has a manifest of its own"

#: A command of kubectl's, docker's or podman's → what to do here.
ELSEWHERE = {
    "run": "write a manifest, then `kubelite apply -f FILE` (- is stdin); in a pod that runs, `kubelite debug`",
    "create": "`kubelite apply -f FILE`",
    "replace": _FILES,
    "patch": _FILES,
    "set": _FILES,
    "label": f"{_FILES}; of the node, `kubelite node label`",
    "annotate": _FILES,
    "proxy": "the API is a unix socket: `curl --unix-socket /run/kubelite/kubelite.sock http://localhost/api/v1/pods`",
    "api-versions": "v1; `kubelite api-resources` lists what is in it",
    "cluster-info": "`kubelite get nodes -o wide`, `kubelite version`",
    "info": "`kubelite get nodes -o wide`, `kubelite version`",
    "config": "a daemon is named by --socket or KUBELITE_SOCKET, nothing else is configured",
    "cordon": _NODE,
    "uncordon": _NODE,
    "taint": _NODE,
    "drain": f"`kubelite node cordon`, then `kubelite delete pod --all`; {_NODE}",
    "scale": _NONE,
    "autoscale": _NONE,
    "expose": f"{_NONE}; a container's ports[].hostPort opens it to others",
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
    """The sentence for a command that is not here."""
    instead = ELSEWHERE.get(word)
    if instead is None:
        return f'unknown command "{word}"{nearest(word, known)}'
    return f'there is no command "{word}" here: {instead}'
