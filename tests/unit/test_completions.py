"""The installed completion scripts, each run by its own shell."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from deploy.completions import scripts

BESIDE = str(Path(sys.executable).parent)


@pytest.fixture
def share(tmp_path: Path) -> Path:
    for path, text in scripts().items():
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    return tmp_path


def ask(shell: str, code: str, **environ: str) -> list[str]:
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")
    with tempfile.TemporaryDirectory() as home:  # fish writes into it
        done = subprocess.run(
            [
                shell,
                *(["--norc"] if shell == "bash" else ["-f"] if shell == "zsh" else ["--no-config"]),
                "-c",
                code,
            ],
            env={
                "HOME": home,
                "LC_ALL": "C.UTF-8",
                "PATH": f"{BESIDE}:{os.environ['PATH']}",
                **environ,
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split("\n")[:-1]


def in_bash(share: Path, command: str, line: str) -> list[str]:
    """The completions of bash for a line whose last word is being typed."""
    words = line.split(" ")
    function = {"kubelite": "_kubelite_completion", "kubelite-oci": "_kubelite_oci"}[command]
    return ask(
        "bash",
        f"source {share}/bash-completion/completions/{command}; COMP_WORDS=({' '.join(map(repr, words))}); "
        f"COMP_CWORD={len(words) - 1}; {function} {command}; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
    )


def test_bash(share: Path) -> None:
    assert in_bash(share, "kubelite", "kubelite lo") == ["logs", "login", "logout", "load"]
    assert in_bash(share, "kubelite", "kubelite rollout re") == ["restart", "resume"]
    assert in_bash(share, "kubelite", "kubelite get --watch") == ["--watch", "--watch-only"]
    assert in_bash(share, "kubelite-oci", "kubelite-oci st") == ["start", "state"]
    assert in_bash(share, "kubelite-oci", "kubelite-oci --root /x st") == ["start", "state"]
    assert in_bash(share, "kubelite-oci", "kubelite-oci --log") == ["--log", "--log-format"]
    assert in_bash(share, "kubelite-oci", "kubelite-oci run --pid") == ["--pid-file", "--pidfd-socket"]


def test_fish(share: Path) -> None:
    place = share / "fish/vendor_completions.d"

    def words(line: str) -> list[str]:
        command = line.partition(" ")[0]
        said = ask("fish", f"source {place}/{command}.fish; complete -C '{line}'")
        return [one.partition("\t")[0] for one in said]

    assert sorted(words("kubelite lo")) == ["load", "login", "logout", "logs"]
    assert words("kubelite-oci st") == ["start", "state"]
    assert words("kubelite-oci delete --") == ["--force"]


def test_zsh_finds_and_reads_them(share: Path) -> None:
    place = share / "zsh/site-functions"
    code = f"fpath=({place} $fpath); autoload -Uz compinit; compinit -D -u; "
    code += "print -l $_comps[kubelite] $_comps[kubelite-oci]; autoload +X _kubelite _kubelite-oci"
    assert ask("zsh", code) == ["_kubelite", "_kubelite-oci"]


def test_every_flag_is_completed_in_every_shell(share: Path) -> None:
    from runtime.oci.cli.options import COMMANDS

    flags = {name for command in COMMANDS.values() for name in command.flags}
    bash = (share / "bash-completion/completions/kubelite-oci").read_text()
    zsh = (share / "zsh/site-functions/_kubelite-oci").read_text()
    fish = (share / "fish/vendor_completions.d/kubelite-oci.fish").read_text()
    for flag in flags:
        assert f"--{flag}" in bash and f"'--{flag}[" in zsh and f" -l {flag} " in fish
