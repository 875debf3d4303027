"""A pod's files on disk."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from kubelite.node.cri.pod_files import link_log


def test_collectors_without_privileges_find_the_links_of_logs(tmp_path: Path) -> None:
    log = tmp_path / "pods/shop_web_1234/main/0.log"
    before = os.umask(0o077)  # that of the systemd unit
    try:
        link_log(str(tmp_path), str(log), "main", "5678")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "containers").stat().st_mode) == 0o755
    assert [os.readlink(link) for link in (tmp_path / "containers").iterdir()] == [str(log)]
