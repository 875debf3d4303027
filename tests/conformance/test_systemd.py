"""`--systemd-cgroup`: a scope for each container, created by the service manager on the system bus."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.conftest import Bundle, Done, Runtime
from tests.conformance.systemd_peer import Systemd
from tests.waiting import remove_cgroup

# Each pytest process has slices of its own: it removes them after each test, beside the tests of another.
TOP = f"klt{os.getpid()}"
SLICE = f"{TOP}-test.slice"
WHERE = f"/{TOP}.slice/{SLICE}"


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: Runtime) -> Iterator[Systemd]:
    if runtime.name in ("runc", "crun"):
        pytest.skip("runc asks for /run/systemd/system, whatever bus is named")
    made = Systemd(tmp_path / "bus")
    made.start()
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path / 'bus'}")
    yield made
    made.close()
    remove_cgroup(f"{TOP}.slice")  # as soon as the last that was killed in it has gone


def create(bundle: Bundle, *args: str) -> Done:
    bundle.linux["cgroupsPath"] = f"{SLICE}:klt:{bundle.id}"
    bundle.write(*args)
    return bundle.runtime("--systemd-cgroup", "create", "--bundle", str(bundle.path), bundle.id)


def cgroups(pid: int) -> set[str]:
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return {line.split(":", 2)[2] for line in lines}


def test_a_scope_from_create_to_delete(runtime: Runtime, bundle: Bundle, systemd: Systemd) -> None:
    bundle.linux["resources"].update(pids={"limit": 50}, cpu={"shares": 512})
    bundle.config["annotations"] = {"org.systemd.property.TimeoutStopSec": "7"}
    done = create(bundle, "sleep", "60")
    assert done.code == 0, done.err
    unit = f"klt-{bundle.id}.scope"
    asked = systemd.units[unit]
    assert (asked["Slice"], asked["Delegate"], asked["DefaultDependencies"]) == (SLICE, 1, 0)
    assert (asked["TasksMax"], asked["TimeoutStopUSec"], asked["DevicePolicy"]) == (50, 7_000_000, "strict")
    assert ["char-pts", "rwm"] in asked["DeviceAllow"]
    pid = runtime.state(bundle.id)["pid"]
    assert cgroups(pid) == {f"{WHERE}/{unit}"}
    (holder,) = asked["PIDs"]
    assert holder != pid
    assert not os.path.exists(f"/proc/{holder}")
    runtime("start", bundle.id, check=True)
    runtime("update", "--pids-limit", "60", bundle.id, check=True)
    assert systemd.calls[-1] == ("SetUnitProperties", [unit, 1, [["TasksMax", 60]]])
    runtime("delete", "--force", bundle.id, check=True)
    assert systemd.units == {}
    assert not list(Path("/sys/fs/cgroup").glob(f"**/{unit}"))


def test_a_failed_unit_of_the_same_name_is_forgotten(
    runtime: Runtime, bundle: Bundle, systemd: Systemd
) -> None:
    systemd.failed.add(f"klt-{bundle.id}.scope")
    done = create(bundle, "true")
    assert done.code == 0, done.err
    members = [member for member, _ in systemd.calls]
    assert members[-3:] == ["StartTransientUnit", "ResetFailedUnit", "StartTransientUnit"]
    runtime("delete", "--force", bundle.id, check=True)


def test_a_scope_that_fails_to_start(runtime: Runtime, bundle: Bundle, systemd: Systemd) -> None:
    systemd.result = "failed"
    done = create(bundle, "true")
    assert done.code != 0
    assert f"klt-{bundle.id}.scope was not started: failed" in done.err
    assert not any(runtime.root.iterdir())
    systemd.result = "done"


def test_a_later_failure_removes_the_scope(runtime: Runtime, bundle: Bundle, systemd: Systemd) -> None:
    bundle.mount("/x", "nofs")
    done = create(bundle, "true")
    assert done.code != 0
    assert systemd.units == {}
    assert not list(Path("/sys/fs/cgroup").glob(f"**/klt-{bundle.id}.scope"))


@pytest.mark.parametrize("path", ["/a/path", "x.slice:y", "no-slice:p:n", "a--b.slice:p:n"])
def test_invalid_cgroup_paths_for_systemd(bundle: Bundle, systemd: Systemd, path: str) -> None:
    bundle.linux["cgroupsPath"] = path
    bundle.write("true")
    done = bundle.runtime("--systemd-cgroup", "create", "--bundle", str(bundle.path), bundle.id)
    assert done.code != 0
    assert "cgroupsPath" in done.err


def test_a_container_of_an_older_version(runtime: Runtime, bundle: Bundle) -> None:
    """Its state.json has no unit."""
    if runtime.name != "kubelite-oci":
        pytest.skip("how a runtime keeps its state is its own affair")
    bundle.start("sleep", "60")
    state = runtime.root / bundle.id / "state.json"
    saved = json.loads(state.read_text())
    state.write_text(json.dumps({key: value for key, value in saved.items() if key not in ("unit", "slice")}))
    assert runtime.status(bundle.id) == "running"
    runtime("delete", "--force", bundle.id, check=True)


def test_no_systemd(runtime: Runtime, bundle: Bundle) -> None:
    if os.path.isdir("/run/systemd/system"):
        pytest.skip("needs a machine without systemd")
    bundle.linux["cgroupsPath"] = ""
    bundle.write("true")
    done = runtime("--systemd-cgroup", "create", "--bundle", str(bundle.path), bundle.id)
    assert done.code != 0
    assert "systemd not running on this host" in done.err
