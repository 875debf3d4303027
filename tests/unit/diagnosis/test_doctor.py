"""The findings of doctor: logs of unknown pods, and manifests with errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubelite.diagnosis import doctor
from kubelite.settings import Settings


def levels(log_dir: Path) -> dict[str, str]:
    settings = Settings.load({"log_dir": str(log_dir)}, {})
    return {finding.message: finding.level for finding in doctor._check_logs(settings, {"u1": None})}


def test_logs_of_no_pod_are_a_fault_only_where_nobody_else_has_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pods" / "default_mine_u1").mkdir(parents=True)
    (tmp_path / "pods" / "default_other_u2").mkdir()
    (tmp_path / "containers").mkdir()
    (tmp_path / "containers" / "x.log").symlink_to(tmp_path / "nowhere")
    assert levels(tmp_path) == {
        f"{tmp_path}/pods/default_other_u2 belongs to no pod": "error",
        f"{tmp_path}/containers/x.log is a dangling link": "error",
    }
    monkeypatch.setattr(doctor, "SHARED_LOGS", str(tmp_path))
    assert levels(tmp_path) == {
        f"{tmp_path}/pods/default_other_u2 belongs to no pod of this node": "warning",
        f"{tmp_path}/containers/x.log is a dangling link": "warning",
    }


def test_a_file_system_is_known_by_its_mount() -> None:
    assert (doctor._file_system("/proc"), doctor._file_system("/sys")) == ("proc", "sysfs")


@pytest.mark.parametrize(("kind", "found"), [("overlay", 1), ("ext4", 0)])
def test_a_node_on_an_overlay_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, found: int
) -> None:
    monkeypatch.setattr(doctor, "_file_system", lambda path: kind)
    said: list[tuple[str, ...]] = []
    settings = Settings.load({"root": str(tmp_path), "run_dir": str(tmp_path), "log_dir": str(tmp_path)}, {})
    doctor._check_disks(settings, lambda *words: said.append(words))
    assert [words[0] for words in said] == ["disk"] * found
    assert all("none can start" in words[1] and "give it a volume" in words[2] for words in said)


@pytest.mark.parametrize(
    ("total", "files", "message"),
    [
        (3, [], ""),
        (3, ["/m/web.yaml"], "1 of 3 manifests is not applied because of errors: web.yaml"),
        (7, [f"/m/{n}/a.yaml" for n in range(7)], "7 of 7 manifests are not applied because of errors: "
         "0/a.yaml, 1/a.yaml, 2/a.yaml, 3/a.yaml, 4/a.yaml and 2 more"),
    ],
)  # fmt: skip
def test_manifests_with_errors_are_counted(total: int, files: list[str], message: str) -> None:
    found = list(doctor._check_manifests("/m", total, files))
    assert [(f.level, f.message) for f in found] == ([("warning", message)] if message else [])
    assert all("kubelite get manifests" in f.fix for f in found)
