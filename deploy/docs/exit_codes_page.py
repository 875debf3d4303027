"""docs/reference/exit-codes.md: the exit codes of the commands. A test compares them with the codes in the modules."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from deploy.docs.tables import table, titled
from kubelite.cli.main import COMMANDS
from kubelite.node.model.pod_view import LOST_EXIT_CODE
from runtime.oci.cli.processes import EXEC_FAILED

CLI: Final = Path(__file__).resolve().parents[2] / "kubelite" / "cli"

ALL: Final = (
    ("0", "The command did what was asked."),
    (
        "1",
        "It failed; the reason is on standard error. A named object that does not exist is a failure.",
    ),
    (
        "2",
        "Wrong usage: an unknown flag, a missing or malformed argument; `serve`, `reset`: an invalid setting.",
    ),
    ("130", "Interrupted with Ctrl-C."),
    ("141", "The reader of its output has gone (`kubelite logs web` into `head`)."),
)
#: command → the meaning of its codes, if they differ from ALL
OWN: Final = {
    "diff": "0: nothing would change; 1: something would; 2: an error",
    "doctor": "1: a check found an error; warnings alone leave it at 0",
    "exec": "the exit code of the program; 126: it cannot be executed; 127: it does not exist; 128 + *n*: signal "
    "*n* ended the program or this command",
    "policy trace": "0: the connection is allowed; 1: it cannot be judged; 3: policies drop it",
    "rmi": "1: at least one of the images was not removed",
    "version": "1: the daemon does not answer",
    "wait": "1: at least one condition was not met in time",
}
OCI: Final = (
    ("0", "The command did what was asked."),
    ("1", "It failed; the reason is on standard error and in the file of `--log`."),
    ("130", "Interrupted with Ctrl-C."),
    (
        f"{EXEC_FAILED}",
        "`exec`: the program could not be run. Every other code of `exec` and `run` is the program's.",
    ),
    ("128 + *n*", "`exec`, `run`: signal *n* ended the program."),
)
CONTAINERS: Final = (
    ("0", "`Completed`", "The program ended successfully."),
    ("1 to 255", "`Error`", "The program ended with this code."),
    ("128 + *n*", "`Error`", "Signal *n* ended the program: 137 is SIGKILL, 143 is SIGTERM."),
    ("137", "`OOMKilled`", "The kernel killed the container's first process because memory ran out."),
    ("128", "`StartError`", "The program could not be executed."),
    (
        f"{LOST_EXIT_CODE}",
        "`ContainerStatusUnknown`",
        "The end was not observed: the machine or the pod's shim went down.",
    ),
)


def page() -> str:
    undocumented = {module: codes for module, codes in named_codes().items() if not codes <= known()}
    if undocumented:
        raise ValueError(f"exit codes that this page does not have: {undocumented}")
    if strange := {name for name in OWN if name.split()[0] not in COMMANDS}:
        raise ValueError(f"no commands: {strange}")
    return titled(
        "".join(
            [
                "# Exit codes\n\n## kubelite\n\n",
                table(("code", "meaning"), ALL),
                "\nCommands with codes of their own:\n\n",
                table(("command", "codes"), ((f"`kubelite {name}`", said) for name, said in OWN.items())),
                "\n`kubelite serve` ends with 0 after SIGTERM or SIGINT. It ends with 1 if the node cannot start, ",
                "or if an unexpected error stops it.\n",
                "\n## kubelite-oci\n\n",
                table(("code", "meaning"), OCI),
                "\n## Containers\n\nThe status of an ended container (`kubelite describe pod`) has\n",
                "these codes and reasons:\n\n",
                table(("code", "reason", "meaning"), CONTAINERS),
            ]
        )
    )


def known() -> set[int]:
    return {int(code) for code, _ in ALL}


def named_codes() -> dict[str, set[int]]:
    """The exit codes that each module of the command line names as numbers."""
    found = {
        path.stem: set(_codes(ast.parse(path.read_text(encoding="utf-8")))) for path in CLI.rglob("*.py")
    }
    return {module: codes for module, codes in found.items() if codes}


def _codes(tree: ast.Module) -> Iterator[int]:
    """`Exit(N)`, `CliError(…, code=N)`."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        given = list(node.args[:1]) if node.func.id == "Exit" else []
        if node.func.id.endswith("Error"):
            given = [keyword.value for keyword in node.keywords if keyword.arg == "code"]
        for value in given:
            yield from (
                part.value
                for part in ast.walk(value)
                if isinstance(part, ast.Constant) and type(part.value) is int and not _added(value)
            )


def _added(value: ast.expr) -> bool:
    """`128 + number`: a signal's code, which the page describes as such."""
    return isinstance(value, ast.BinOp)
