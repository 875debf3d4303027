"""`kubelite edit`: the choice of the file, the editor's result, and errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.api.server import Served
from tests.unit.cli.kit import WEB, kubelite, ok, server

__all__ = ["server"]


@pytest.fixture
def file(server: Served, monkeypatch: pytest.MonkeyPatch) -> Path:
    ok(server, "apply", "-f", "-", stdin=WEB)
    (found,) = Path(server.node.manifests_dir).iterdir()
    monkeypatch.setenv("EDITOR", "sed -i s/nginx:1/nginx:2/")
    monkeypatch.setenv("TMPDIR", str(server.root))
    monkeypatch.delenv("KUBE_EDITOR", raising=False)
    return found


def drafts(server: Served) -> list[Path]:
    return list(server.root.glob("kubelite-edit-*/*"))


@pytest.mark.parametrize("what", [("pod/nginx",), ("pods", "nginx"), ("nginx",), ("FILE",)])
def test_the_edited_text_is_written_to_the_file(server: Served, file: Path, what: tuple[str, ...]) -> None:
    file.chmod(0o640)
    said = ok(server, "edit", *(word.replace("FILE", file.name) for word in what))
    assert said == f"{file} edited\n"
    assert "image: nginx:2" in file.read_text() and file.stat().st_mode & 0o777 == 0o640
    assert list(file.parent.iterdir()) == [file] and not drafts(server)


def test_an_unchanged_text_changes_nothing(
    server: Served, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = file.stat()
    monkeypatch.setenv("KUBE_EDITOR", "true")
    assert ok(server, "edit", "pod/nginx") == "Edit cancelled, no changes made.\n"
    assert file.stat().st_mtime_ns == before.st_mtime_ns and not drafts(server)


def test_an_invalid_edit_changes_nothing_and_is_saved(
    server: Served, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDITOR", "sed -i s/image/imgae/")
    done = kubelite(server, "edit", "pod/nginx")
    (draft,) = drafts(server)
    assert done.returncode == 1 and "imgae" in done.stderr and str(draft) in done.stdout
    assert file.read_text() == WEB and "imgae" in draft.read_text()


@pytest.mark.parametrize(
    "case",
    [
        (("pod/nix",), "true", 'error: no manifest has pod "nix" in namespace default'),
        (("nix.yaml",), "true", "error: nix.yaml is not a manifest of this node"),
        ((), "true", "error: specify an object or a file"),
        (("pod/nginx",), "false", "error: the editor false exited with code 1: no changes made"),
        (("pod/nginx",), "/no/editor", "error: cannot start the editor /no/editor"),
    ],
)
def test_errors_of_edit(
    server: Served, file: Path, monkeypatch: pytest.MonkeyPatch, case: tuple[tuple[str, ...], str, str]
) -> None:
    what, editor, words = case
    before = file.read_text()
    monkeypatch.setenv("EDITOR", editor)
    done = kubelite(server, "edit", *what)
    assert done.returncode in (1, 2) and words in done.stderr
    assert file.read_text() == before and not drafts(server)
