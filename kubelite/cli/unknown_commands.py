"""Commands of kubectl, docker and podman that kubelite lacks, each with its equivalent."""

from __future__ import annotations

from collections.abc import Iterable

from kubelite.cli.names import nearest

_FILES = "edit the manifest's file (`kubelite edit TYPE/NAME`) or `kubelite apply -f FILE`"
_RESTART = "`kubelite rollout restart POD` recreates it; `kubelite delete -f FILE` deletes it for good"
_STOP = (
    "a pod runs while its manifest is in the directory: `kubelite delete -f FILE` ends it; to end the node, "
    "`systemctl stop kubelite` or `kubelite reset`"
)
_NODE = "`kubelite node label|taint`"
_SERVICES = (
    "`kubelite get services` lists those of Kubernetes, `kubelite expose TYPE/NAME --port=80` creates one"
)
_COMPOSE = (
    "write a Deployment and a Service for each service of the project into one manifest (`kubelite create deployment` "
    "and `kubelite expose`, with --dry-run=client -o yaml, print them); then `kubelite apply -f FILE` is up, "
    "`kubelite delete -f FILE` is down"
)
_NO_SWARM = "this is one machine: `kubelite get all` shows its workloads"

#: A command of kubectl, docker or podman → the equivalent.
ELSEWHERE = {
    "replace": _FILES,
    "api-versions": "v1; `kubelite api-resources` lists its types",
    "cluster-info": "`kubelite get nodes -o wide`, `kubelite version`",
    "info": "`kubelite get nodes -o wide`, `kubelite version`",
    "config": "select a daemon with --socket or KUBELITE_SOCKET; the client has no other configuration",
    "taint": _NODE,
    "ps": "`kubelite get pods -A`, `kubelite top containers -A`",
    "start": _RESTART,
    "stop": _STOP,
    "restart": _RESTART,
    "kill": "`kubelite delete pod POD --force` kills its containers at once; its manifest creates it again. For good: "
    "`kubelite delete -f FILE`",
    "rm": "`kubelite delete -f FILE`, `kubelite delete pod POD`; images: `kubelite rmi IMAGE`",
    "import": "`kubelite load ARCHIVE`",
    "export": "`kubelite exec POD -- tar c / > FILE`; images: `kubelite save`",
    "volume": "volumes are in a pod's manifest: `kubelite explain pod.spec.volumes`; claims: `kubelite get pvc`",
    "volumes": "`kubelite get pvc`, `kubelite get pv`",
    "network": "each pod is on the node's bridge: `kubelite get pods -o wide` shows addresses, "
    "`kubelite explain pod.spec.containers.ports` how to publish a port",
    "networks": "each pod is on the node's bridge: `kubelite get pods -o wide` shows addresses",
    "container": "`kubelite get pods`, `kubelite top containers`, `kubelite inspect`, `kubelite logs`, `kubelite exec`",
    "containers": "`kubelite top containers -A`, `kubelite get pods -A`",
    "compose": _COMPOSE,
    "up": _COMPOSE,
    "down": "`kubelite delete -f FILE` ends what a manifest defines; to end the node, `kubelite reset`",
    "secret": "`kubelite create secret generic NAME --from-literal=KEY=VALUE`, `kubelite get secrets`",
    "configmap": "`kubelite create configmap NAME --from-file=FILE`, `kubelite get configmaps`",
    "commit": "write a Containerfile, then `kubelite build`; `kubelite cp` copies files out of a container",
    "pause": "there is no freezing of containers; `kubelite delete -f FILE` ends a pod",
    "unpause": "there is no freezing of containers",
    "rename": "a pod's name is metadata.name in its manifest; images: `kubelite tag`",
    "update": "`kubelite set resources TYPE/NAME --limits=…`; limits change without a restart if possible",
    "port": "`kubelite get pod POD -o yaml` shows hostPort, `kubelite port-forward POD PORT` forwards one",
    "search": "search on the registry's web site, then `kubelite pull IMAGE`",
    "context": "select a daemon with --socket or KUBELITE_SOCKET",
    "swarm": _NO_SWARM,
    "service": _SERVICES,
    "stack": "`kubelite apply -f DIR` applies all manifests of a directory",
    "pod": "`kubelite get pods`, `kubelite run IMAGE`, `kubelite delete pod NAME`",
    "generate": "`kubelite get pod POD -o yaml`, `kubelite run IMAGE --dry-run=client -o yaml`",
    "play": "`kubelite apply -f FILE`",
    "kube": "`kubelite apply -f FILE`",
    "system": "`kubelite df`, `kubelite image prune`, `kubelite doctor`",
}


_MANIFEST = "write it into the manifest: add --dry-run=client -o yaml, edit, then `kubelite apply -f FILE`"
_ONE_WRITER = "kubelite apply writes whole documents: leave it out, or use kubectl (`kubelite kubeconfig`)"
#: Command → option of kubectl or docker that it lacks → the equivalent.
OPTIONS_ELSEWHERE = {
    "apply": {
        "--prune": "remove a file from the manifest directory, or `kubelite delete -f FILE`: its pods end",
        "--server-side": _ONE_WRITER,
        "--force-conflicts": _ONE_WRITER,
        "--field-manager": _ONE_WRITER,
        "--force": "an edit recreates a pod where it must; `kubelite diff -f FILE` says so in advance",
        "--validate": "manifests are always validated: leave it out",
        "--wait": "`kubelite rollout status FILE` waits for the pods",
    },
    "build": {
        "--squash": "layers are kept as they are; a second stage with COPY --from leaves out what only the build needs",
        "--push": "`kubelite push IMAGE` afterwards",
        "--load": "the image is on the node already: leave it out",
        "--cache-from": "the cache is the node's own, `kubelite df` shows its size",
        "--cache-to": "the cache is the node's own, `kubelite df` shows its size",
        "--rm": "a build leaves no containers: leave it out",
        "--force-rm": "a build leaves no containers: leave it out",
    },
    "run": {
        "-d": "a pod runs in the background unless -i or --attach is given: leave it out",
        "--detach": "a pod runs in the background unless -i or --attach is given: leave it out",
        "-e": "use --env NAME=VALUE",
        "-p": f"ports[].hostPort publishes a port: {_MANIFEST}",
        "--publish": f"ports[].hostPort publishes a port: {_MANIFEST}",
        "--expose": f"ports[].hostPort publishes a port: {_MANIFEST}",
        "-v": f"a pod has volumes: {_MANIFEST}",
        "--volume": f"a pod has volumes: {_MANIFEST}",
        "--mount": f"a pod has volumes: {_MANIFEST}",
        "-m": f"resources.limits.memory: {_MANIFEST}",
        "--memory": f"resources.limits.memory: {_MANIFEST}",
        "--cpus": f"resources.limits.cpu: {_MANIFEST}",
        "--limits": f"resources.limits: {_MANIFEST}",
        "-u": f"securityContext.runAsUser: {_MANIFEST}",
        "--user": f"securityContext.runAsUser: {_MANIFEST}",
        "-w": f"workingDir: {_MANIFEST}",
        "--entrypoint": "add --command: the words after -- then replace the entrypoint",
        "--network": f"a pod is on the node's bridge; hostNetwork joins the machine's: {_MANIFEST}",
        "--overrides": _MANIFEST,
    },
}
_SIMILAR = 0.8  # similarity from which an unknown option counts as a misspelt known one


def option_elsewhere(path: str, option: str) -> str:
    """Return the error message for an option that another tool's command of this name has; "" for any other."""
    instead = OPTIONS_ELSEWHERE.get(path.removeprefix("kubelite "), {}).get(option, "")
    return f'{path} has no option "{option}": {instead}' if instead else ""


def unknown_option(option: str, known: Iterable[str]) -> str:
    """Return the error message for an unknown option, with the known ones that are similar."""
    from difflib import SequenceMatcher

    near = [one for one in known if SequenceMatcher(None, option, one).ratio() >= _SIMILAR]
    return f"no such option '{option}'" + (f"; did you mean {' or '.join(near)}?" if near else "")


def unknown_command(word: str, known: Iterable[str]) -> str:
    """Return the error message for an unknown command."""
    instead = ELSEWHERE.get(word)
    if instead is None:
        return f'unknown command "{word}"{nearest(word, known)}'
    return f'kubelite has no command "{word}": {instead}'
