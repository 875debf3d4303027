"""What doctor makes of a directory that others may use too."""

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
