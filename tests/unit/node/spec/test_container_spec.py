"""container_spec: config.json field by field. The engine's own validation accepts it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kubelite.node.model.cri import ObservedImage, ObservedSandbox
from kubelite.node.model.errors import ConfigError, CreateError
from kubelite.node.spec.container_spec import Prepared, Source, container_spec
from kubelite.node.spec.users import ResolvedUser
from manifests.types.core import Pod
from runtime.oci.config import spec as oci
from runtime.security.paths import READONLY_PATHS
from tests.unit.node.decide.pod_worlds import CONFIG, container, make_pod

BOX = ObservedSandbox("s", True, 4242, 0.0, "10.88.0.2", cgroup="/kubelite/besteffort/podX")


def prepared(image: dict[str, Any] | None = None, **more: Any) -> Prepared:
    config = {"Cmd": ["sh"]} if image is None else image
    fields: dict[str, Any] = {
        "hosts": "/p/etc-hosts",
        "hostname": "/p/hostname",
        "resolv_conf": "/p/resolv.conf",
        "termination_log": "/p/log",
        "masked_paths": ("/proc/kcore",),
        "seccomp": {"defaultAction": "SCMP_ACT_ERRNO"},
    }
    fields.update(more)
    user = fields.pop("user", ResolvedUser())
    return Prepared(ObservedImage("sha256:1", "app", config=config), BOX, "c" * 64, user, **fields)


def made(one: dict[str, Any], ready: Prepared | None = None, **pod: Any) -> dict[str, Any]:
    whole = make_pod(one, **pod)
    return container_spec(whole, whole.spec.containers[0], ready or prepared(), CONFIG)


def mount(spec: dict[str, Any], path: str) -> dict[str, Any] | None:
    found = [entry for entry in spec["mounts"] if entry["destination"] == path]
    assert len(found) <= 1, f"{path} is mounted twice"
    return found[0] if found else None


def namespaces(spec: dict[str, Any]) -> dict[str, str]:
    return {entry["type"]: entry.get("path", "") for entry in spec["linux"]["namespaces"]}


def test_the_engine_accepts_it_and_it_is_json() -> None:
    spec = made(container("a"))
    oci.validate(json.loads(json.dumps(spec)))


def test_the_defaults_are_dockers() -> None:
    spec = made(container("a"))
    process, linux = spec["process"], spec["linux"]
    assert process["args"] == ["sh"]
    assert process["cwd"] == "/"
    assert process["user"] == {"uid": 0, "gid": 0, "additionalGids": [0]}
    assert process["noNewPrivileges"] is False
    assert process["oomScoreAdj"] == 1000
    assert len(process["capabilities"]["bounding"]) == 14
    assert process["capabilities"]["effective"] == process["capabilities"]["bounding"]
    assert "ambient" not in process["capabilities"]
    assert linux["cgroupsPath"] == f"/kubelite/besteffort/podX/{'c' * 64}"
    assert linux["maskedPaths"] == ["/proc/kcore"]
    assert linux["readonlyPaths"] == list(READONLY_PATHS)
    assert linux["seccomp"] == {"defaultAction": "SCMP_ACT_ERRNO"}
    assert linux["resources"]["devices"][0] == {"allow": False, "access": "rwm"}
    assert {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rwm"} in linux["resources"][
        "devices"
    ]
    assert namespaces(spec) == {
        "mount": "",
        "cgroup": "",
        "pid": "",
        "network": "/proc/4242/ns/net",
        "uts": "/proc/4242/ns/uts",
        "ipc": "/proc/4242/ns/ipc",
    }
    order = [entry["destination"] for entry in spec["mounts"]]
    assert order.index("/dev") < order.index("/dev/pts") < order.index("/sys/fs/cgroup")
    assert {"/proc", "/dev/shm", "/dev/mqueue", "/sys"} < set(order)
    assert "ro" in (mount(spec, "/sys") or {})["options"]


@pytest.mark.parametrize(
    ("image", "command", "args", "expected"),
    [
        ({"Entrypoint": ["e"], "Cmd": ["c"]}, [], [], ["e", "c"]),
        ({"Entrypoint": ["e"], "Cmd": ["c"]}, [], ["a"], ["e", "a"]),
        ({"Entrypoint": ["e"], "Cmd": ["c"]}, ["x"], [], ["x"]),
        ({"Entrypoint": ["e"], "Cmd": ["c"]}, ["x"], ["a"], ["x", "a"]),
        ({"Cmd": ["c"]}, [], [], ["c"]),
        ({}, ["x", "$(A)", "$$(A)", "$(NO)"], [], ["x", "1", "$(A)", "$(NO)"]),
    ],
)
def test_program(image: dict[str, Any], command: list[str], args: list[str], expected: list[str]) -> None:
    spec = made(container("a", command=command, args=args), prepared(image, env={"A": "1"}))
    assert spec["process"]["args"] == expected


def test_no_program_at_all() -> None:
    with pytest.raises(CreateError, match="no command specified"):
        made(container("a"), prepared({}))


def test_environment_and_directory() -> None:
    image = {"Cmd": ["c"], "Env": ["A=image", "B=image", "PATH=/image"], "WorkingDir": "/srv"}
    process = made(container("a"), prepared(image, env={"A": "manifest"}))["process"]
    assert "A=manifest" in process["env"]
    assert "B=image" in process["env"]
    assert "PATH=/image" in process["env"]
    assert "HOSTNAME=web" in process["env"]
    assert process["cwd"] == "/srv"
    own = made(container("a", workingDir="/w", tty=True), prepared(image))["process"]
    assert own["cwd"] == "/w"
    assert own["terminal"] is True
    assert "TERM=xterm" in own["env"]


@pytest.mark.parametrize(
    ("capabilities", "has", "lacks"),
    [
        ({"add": ["NET_ADMIN"]}, "CAP_NET_ADMIN", "CAP_SYS_ADMIN"),
        ({"drop": ["CHOWN"]}, "CAP_KILL", "CAP_CHOWN"),
        ({"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}, "CAP_NET_BIND_SERVICE", "CAP_CHOWN"),
        ({"add": ["ALL"]}, "CAP_SYS_ADMIN", ""),
    ],
)
def test_capabilities(capabilities: dict[str, Any], has: str, lacks: str) -> None:
    bounding = made(container("a", securityContext={"capabilities": capabilities}))["process"][
        "capabilities"
    ]["bounding"]
    assert has in bounding
    assert lacks not in bounding


def test_an_unknown_capability_is_named() -> None:
    with pytest.raises(CreateError, match="NO_SUCH"):
        made(container("a", securityContext={"capabilities": {"add": ["NO_SUCH"]}}))


def test_privileged_gets_the_machine() -> None:
    devices = [{"type": "c", "path": "/dev/kvm", "major": 10, "minor": 232}]
    spec = made(container("a", securityContext={"privileged": True}), prepared(devices=devices, seccomp=None))
    linux = spec["linux"]
    assert (linux["maskedPaths"], linux["readonlyPaths"], "seccomp" in linux) == ([], [], False)
    assert linux["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    assert linux["devices"] == devices
    assert "CAP_SYS_ADMIN" in spec["process"]["capabilities"]["bounding"]
    assert "rw" in (mount(spec, "/sys") or {})["options"]
    assert "rw" in (mount(spec, "/sys/fs/cgroup") or {})["options"]


def test_restrictions() -> None:
    security = {"readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False, "procMount": "Unmasked"}
    spec = made(container("a", securityContext=security))
    assert spec["root"]["readonly"] is True
    assert spec["process"]["noNewPrivileges"] is True
    assert spec["linux"]["maskedPaths"] == []
    assert (mount(spec, "/etc/hosts") or {})["options"][-1] == "ro"
    assert "ro" not in (mount(spec, "/dev/termination-log") or {})["options"]


@pytest.mark.parametrize("path", ["/", "//.", "."])
def test_a_volume_cannot_replace_the_root(path: str) -> None:
    mounted = container("a", volumeMounts=[{"name": "v", "mountPath": path}])
    with pytest.raises(CreateError, match="is the container's root"):
        made(mounted, volumes=[{"name": "v", "emptyDir": {}}])


def test_user_and_groups() -> None:
    spec = made(container("a"), prepared(user=ResolvedUser(1000, 50, (7, 9))))
    assert spec["process"]["user"] == {"uid": 1000, "gid": 50, "additionalGids": [50, 7, 9]}
    spec = made(container("a"), prepared(user=ResolvedUser(1000, 9, (7, 9))))
    assert spec["process"]["user"]["additionalGids"] == [9, 7], "the primary group is one of them, once"


def test_namespaces_shared_with_the_host_are_left_out() -> None:
    spec = made(container("a"), hostNetwork=True, hostPID=True, hostIPC=True)
    assert set(namespaces(spec)) == {"mount", "cgroup"}
    assert (mount(spec, "/dev/shm") or {})["source"] == "/dev/shm"
    assert "HOSTNAME=node" in spec["process"]["env"]


def test_limits() -> None:
    asked = {"limits": {"cpu": "500m", "memory": "64Mi"}, "requests": {"cpu": "100m"}}
    resources = made(container("a", resources=asked))["linux"]["resources"]
    assert resources["cpu"] == {"shares": 102, "period": 100000, "quota": 50000}
    assert resources["memory"] == {"limit": 64 << 20, "swap": 64 << 20}


def volumes(*mounts: dict[str, Any]) -> dict[str, Any]:
    return container("a", volumeMounts=[{"name": "v", **entry} for entry in mounts])


def test_volumes_are_mounted_parents_first() -> None:
    one = volumes({"mountPath": "/data/sub/"}, {"mountPath": "/data", "readOnly": True})
    spec = made(one, prepared(volumes={"/data/sub/": Source("/h/1", "x/y"), "/data": Source("/h/2")}))
    order = [entry["destination"] for entry in spec["mounts"]]
    assert order.index("/data") < order.index("/data/sub")
    assert (mount(spec, "/data") or {})["options"] == ["rbind", "rprivate", "remount", "ro"]
    sub = mount(spec, "/data/sub") or {}
    assert sub["source"] == "/h/1/x/y"
    assert sub["options"] == ["rbind", "rprivate", "x-beneath=/h/1"]


def test_a_volume_can_replace_the_pods_own_files() -> None:
    spec = made(volumes({"mountPath": "/etc/hosts"}), prepared(volumes={"/etc/hosts": Source("/h/hosts")}))
    assert (mount(spec, "/etc/hosts") or {})["source"] == "/h/hosts"


def test_mount_propagation() -> None:
    one = volumes({"mountPath": "/v", "mountPropagation": "HostToContainer"})
    spec = made(one, prepared(volumes={"/v": Source("/h")}))
    assert (mount(spec, "/v") or {})["options"] == ["rbind", "rslave"]
    assert spec["linux"]["rootfsPropagation"] == "rslave"


def test_a_missing_volume() -> None:
    with pytest.raises(ConfigError, match='volume "v" does not exist'):
        made(volumes({"mountPath": "/v"}))


def test_shared_memory_of_the_pod_or_of_the_container() -> None:
    assert (mount(made(container("a")), "/dev/shm") or {})["type"] == "tmpfs"
    shared = mount(made(container("a"), prepared(shm="/p/shm")), "/dev/shm")
    assert shared is not None
    assert (shared["type"], shared["source"]) == ("bind", "/p/shm")


def test_annotations_identify_the_pod() -> None:
    pod: Pod = make_pod("a")
    notes = container_spec(pod, pod.spec.containers[0], prepared(), CONFIG)["annotations"]
    assert notes["io.kubernetes.pod.name"] == "web"
    assert notes["io.kubernetes.container.name"] == "a"
