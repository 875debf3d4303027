"""The effect of an edit, for each field: computed by the decision, and listed in docs/reference/edits.md.

`python -m tests.unit.node.decide.test_edit_costs` writes that document.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from kubelite.node.model.actions import PodActions
from kubelite.node.spec import hashes
from kubelite.node.spec.bandwidth import EGRESS
from manifests.types.core import Container, Pod, PodSpec, SecurityContext
from tests.unit.node.decide.pod_worlds import UID, World, container, make_pod

DOCUMENT = Path(__file__).parents[4] / "docs" / "reference" / "edits.md"

NOTHING, CGROUP, RESTART, RECREATE = "nothing", "cgroup write", "container restart", "pod recreate"
RESTARTS = "restart of every container"


class Edit(NamedTuple):
    """A field before and after an edit. `note`: the effect of an edit without restart."""

    path: str
    before: Any
    after: Any
    note: str = ""


_EXEC = {"exec": {"command": ["true"]}}
_TERM: dict[str, Any] = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}
_SPREAD = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
_RANK = "takes effect at the next preemption or eviction"
_PLACED = "takes effect when a pod is scheduled"
_START = "takes effect at the container's next start"

POD = [
    Edit("activeDeadlineSeconds", 600, 1200, "counted from the pod's start"),
    Edit("affinity", None, {"nodeAffinity": _TERM}, _PLACED),
    Edit("automountServiceAccountToken", True, False, "a container that gets or loses the token restarts"),
    Edit(
        "containers",
        ["app", "other"],
        ["app", "other", "third"],
        "an added container starts, a removed one stops",
    ),
    Edit("dnsConfig", None, {"searches": ["example.com"]}, "`resolv.conf` is rewritten in place"),
    Edit("dnsPolicy", "ClusterFirst", "Default", "`resolv.conf` is rewritten in place"),
    Edit("enableServiceLinks", True, False, _START),
    Edit(
        "hostAliases", [], [{"ip": "192.0.2.9", "hostnames": ["a"]}], "the hosts file is rewritten in place"
    ),
    Edit("hostIPC", False, True),
    Edit("hostNetwork", False, True),
    Edit("hostPID", False, True),
    Edit("hostUsers", True, False),
    Edit("hostname", "a", "b"),
    Edit("hostnameOverride", "a", "b"),
    Edit("imagePullSecrets", [], [{"name": "s"}], "takes effect at the next pull"),
    Edit("initContainers", [], ["first"], "runs when the pod's sandbox is next created"),
    Edit("nodeName", None, "node", _PLACED),
    Edit("nodeSelector", {}, {"disk": "ssd"}, _PLACED),
    Edit("os", None, {"name": "linux"}, "this node runs Linux only"),
    Edit("overhead", {"cpu": "1"}, {"cpu": "2"}),
    Edit("preemptionPolicy", "Never", "PreemptLowerPriority", "takes effect while the pod waits for room"),
    Edit("priority", 1, 2, _RANK),
    Edit("priorityClassName", "system-node-critical", "system-cluster-critical", _RANK),
    Edit("readinessGates", [], [{"conditionType": "example.com/up"}], "takes effect at once"),
    Edit("resourceClaims", [], [{"name": "gpu"}], "dynamic resource allocation is not available"),
    Edit("resources", {"limits": {"cpu": "1", "memory": "1Gi"}}, {"limits": {"cpu": "2", "memory": "1Gi"}}),
    Edit("restartPolicy", "Always", "OnFailure", "takes effect at the next exit"),
    Edit("runtimeClassName", None, "sandboxed"),
    Edit("schedulerName", "default-scheduler", "mine", "there is one scheduler"),
    Edit("schedulingGates", [], [{"name": "later"}], _PLACED),
    Edit("schedulingGroup", None, {"podGroupName": "g"}, "pods are scheduled one by one"),
    Edit("securityContext.runAsUser", 1, 2),
    Edit("securityContext.runAsGroup", 1, 2),
    Edit("securityContext.runAsNonRoot", False, True),
    Edit("securityContext.supplementalGroups", [1], [2]),
    Edit("securityContext.fsGroup", 1, 2),
    Edit("securityContext.seccompProfile", {"type": "RuntimeDefault"}, {"type": "Unconfined"}),
    Edit("securityContext.sysctls", [], [{"name": "net.core.somaxconn", "value": "9"}]),
    Edit("serviceAccount", "a", "b", _START),
    Edit("serviceAccountName", "a", "b", _START),
    Edit("setHostnameAsFQDN", False, True),
    Edit("shareProcessNamespace", False, True),
    Edit(
        "subdomain", "a", "b", "the hosts file is rewritten in place; pod recreate with `setHostnameAsFQDN`"
    ),
    Edit("terminationGracePeriodSeconds", 30, 60, "takes effect at the next stop"),
    Edit(
        "tolerations",
        [],
        [{"operator": "Exists"}],
        "at once for NoExecute, otherwise when a pod is scheduled",
    ),
    Edit("topologySpreadConstraints", [], [_SPREAD], _PLACED),
    Edit("volumes", [{"name": "v", "emptyDir": {}}], [{"name": "v", "hostPath": {"path": "/srv"}}]),
]
CONTAINER = [
    Edit("args", ["a"], ["b"]),
    Edit("command", ["a"], ["b"]),
    Edit("env", [{"name": "A", "value": "1"}], [{"name": "A", "value": "2"}]),
    Edit("envFrom", [], [{"configMapRef": {"name": "c"}}]),
    Edit("image", "app:1", "app:2"),
    Edit("imagePullPolicy", "IfNotPresent", "Never", "takes effect at the container's next start"),
    Edit("lifecycle", None, {"preStop": _EXEC}, "takes effect at the next start (postStart) or stop (preStop)"),
    Edit("livenessProbe", None, _EXEC, "takes effect at once"),
    Edit("name", "app", "renamed", "the old one stops, the new one starts"),
    Edit("ports", [{"containerPort": 80}], [{"containerPort": 81}], "ports without `hostPort` are informational"),
    Edit("ports[].hostPort", [{"containerPort": 80}], [{"containerPort": 80, "hostPort": 8080}]),
    Edit("readinessProbe", None, _EXEC, "takes effect at once"),
    Edit("resizePolicy", [], [{"resourceName": "cpu", "restartPolicy": "RestartContainer"}], "effective at a resize"),
    Edit("resources", {"limits": {"cpu": "1"}}, {"limits": {"cpu": "2"}}),
    Edit("restartPolicy", None, "Never", "takes effect at the next exit"),
    Edit("restartPolicyRules", [], [{"action": "Restart", "exitCodes": {"operator": "In", "values": [3]}}],
         "takes effect at the next exit"),
    Edit("securityContext.allowPrivilegeEscalation", True, False),
    Edit("securityContext.appArmorProfile", None, {"type": "Unconfined"}),
    Edit("securityContext.capabilities", {"add": ["KILL"]}, {"drop": ["KILL"]}),
    Edit("securityContext.privileged", False, True),
    Edit("securityContext.procMount", "Default", "Unmasked"),
    Edit("securityContext.readOnlyRootFilesystem", False, True),
    Edit("securityContext.runAsGroup", 1, 2),
    Edit("securityContext.runAsNonRoot", False, True),
    Edit("securityContext.runAsUser", 1, 2),
    Edit("securityContext.seLinuxOptions", None, {"level": "s0"}),
    Edit("securityContext.seccompProfile", None, {"type": "Unconfined"}),
    Edit("securityContext.windowsOptions", None, {"runAsUserName": "a"}),
    Edit("startupProbe", None, _EXEC, "takes effect for an instance that has not started yet"),
    Edit("stdin", False, True),
    Edit("stdinOnce", False, True),
    Edit("terminationMessagePath", "/dev/a", "/dev/b"),
    Edit("terminationMessagePolicy", "File", "FallbackToLogsOnError", "takes effect at the next exit"),
    Edit("tty", False, True),
    Edit("volumeDevices", [], [{"name": "v", "devicePath": "/dev/x"}]),
    Edit("volumeMounts", [], [{"name": "v", "mountPath": "/v"}]),
    Edit("workingDir", "/a", "/b"),
]  # fmt: skip
#: Fields of the models that no manifest can edit.
NOT_EDITED = {"ephemeral_containers": "added by `kubelite debug`, never by a manifest"}


def pod_with(edit: Edit, value: Any) -> Pod:
    """A pod with two containers, `app` having a volume, and this value in a field of the pod."""
    app = container("app", volumeMounts=[{"name": "v", "mountPath": "/data"}])
    spec: dict[str, Any] = {"volumes": [{"name": "v", "emptyDir": {}}]}
    names = value if edit.path == "containers" else ["app", "other"]
    value = [container(n) for n in value] if edit.path == "initContainers" else value
    if edit.path != "containers":
        _set(spec, edit.path, value)
    made = [app if name == "app" else container(name) for name in names]
    return make_pod(*made, **spec)


def container_with(edit: Edit, value: Any) -> Pod:
    app = container("app")
    _set(app, edit.path.partition("[]")[0], value)
    return make_pod(app, "other", volumes=[{"name": "v", "emptyDir": {}}])


def _set(doc: dict[str, Any], path: str, value: Any) -> None:
    outer, dot, inner = path.partition(".")
    if dot:
        doc[outer] = {inner: value}
    elif value is not None:
        doc[outer] = value


def cost(before: Pod, after: Pod) -> str:
    """The most expensive action that the decision about a running pod has."""
    world = World(before)
    world.fake.add_image("app:2")
    world.settle()
    world.pod = after.model_copy(update={"status": world.pod.status})
    found = world.decide()
    sandbox = world.fake.look(UID).sandbox
    assert sandbox is not None
    if sandbox.spec_hash != hashes.sandbox_hash(after):
        assert {stop.name for stop in found.stop} == {"app", "other"}
        return RECREATE
    return _of(found)


def _of(found: PodActions) -> str:
    assert not found.kill_sandbox and not found.create_sandbox
    stopped = {stop.name for stop in found.stop}
    if stopped:
        assert "app" in stopped, found.describe()
        return RESTART if stopped == {"app"} else RESTARTS
    return CGROUP if found.update or found.update_sandbox else NOTHING


def costs() -> Iterator[tuple[str, str, str]]:
    """(field, cost, note) for each field."""
    yield "metadata.labels", cost(make_pod("app", "other"), _labelled({"a": "b"})), "downwardAPI files follow"
    yield (
        "metadata.annotations",
        cost(make_pod("app", "other"), _annotated({"a": "b"})),
        "downwardAPI files follow; limits of bandwidth change in place",
    )
    for edit in POD:
        yield f"spec.{edit.path}", cost(pod_with(edit, edit.before), pod_with(edit, edit.after)), edit.note
    for edit in CONTAINER:
        price = cost(container_with(edit, edit.before), container_with(edit, edit.after))
        yield f"spec.containers[].{edit.path}", price, edit.note


def _labelled(labels: Mapping[str, str]) -> Pod:
    pod = make_pod("app", "other")
    pod.metadata.labels = dict(labels)
    return pod


def _annotated(annotations: Mapping[str, str]) -> Pod:
    pod = make_pod("app", "other")
    pod.metadata.annotations = dict(annotations)
    return pod


HEAD = """# Cost of an edit

<!-- generated by tests/unit/node/decide/test_edit_costs.py: edit the test, not this page -->

What happens when you change a field in the manifest of a running pod. [Edits](../explanation/edits.md) explains the
costs. `kubelite diff -f FILE` shows the cost of your edit before you make it.

| cost | effect |
|---|---|
| nothing | No process is touched. The note says when the new value takes effect. |
| cgroup write | New limits are written into the running container's cgroup (`RestartContainer`: it restarts). |
| container restart | This container stops within its grace period and starts again. The others keep running. |
| restart of every container | The same for all containers, because each inherits the field from the pod. |
| pod recreate | The pod gets new namespaces: all its containers stop and start again. Its volumes stay. |

A pod that has ended (`Succeeded`, `Failed`) is replaced by a new pod when its spec changes.

| field | cost | note |
|---|---|---|
"""


def document() -> str:
    rows = (f"| `{path}` | {price} | {note if price == NOTHING else ''} |" for path, price, note in costs())
    return HEAD + "\n".join(rows) + "\n"


def test_the_table_is_current() -> None:
    assert DOCUMENT.read_text() == document()


def test_every_field_is_listed() -> None:
    pods = {edit.path.partition(".")[0] for edit in POD}
    assert {_json_name(PodSpec, f) for f in PodSpec.model_fields if f not in NOT_EDITED} == pods
    containers = {edit.path.partition(".")[0].partition("[]")[0] for edit in CONTAINER}
    assert {_json_name(Container, f) for f in Container.model_fields} == containers
    security = {edit.path.partition(".")[2] for edit in CONTAINER if edit.path.startswith("securityContext.")}
    assert {_json_name(SecurityContext, f) for f in SecurityContext.model_fields} == security


def _json_name(model: Any, field: str) -> str:
    return str(model.model_fields[field].alias)


if __name__ == "__main__":
    DOCUMENT.write_text(document(), encoding="utf-8")


def test_a_limit_of_bandwidth_changes_in_place() -> None:
    assert cost(make_pod("app", "other"), _annotated({EGRESS: "10M"})) == NOTHING
