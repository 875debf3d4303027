"""Run one command and return its exit code. Only the module of that command is imported."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, Final

from runtime.errors import RuntimeFault
from runtime.oci.cli import context, options
from runtime.oci.cli.context import Context, Log

Run = Callable[[Context, dict[str, Any], list[str]], int]
_MODULES: Final = {
    **dict.fromkeys(("create", "run"), "create"),
    **dict.fromkeys(("start", "kill", "delete", "pause", "resume"), "lifecycle"),
    **dict.fromkeys(("state", "list", "events"), "report"),
    **dict.fromkeys(("features", "spec"), "about"),
    "exec": "processes",
    "ps": "processes",
    "update": "resources",
}
_FUNCTIONS: Final = {"list": "list_", "exec": "run"}
_FAILED: Final = 1


def main() -> None:
    """The entry point. Ends with os._exit, because the interpreter's shutdown would take milliseconds."""
    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = code or _FAILED
    os._exit(code)


def run(argv: list[str]) -> int:
    """Run one command; returns its exit code. Errors have been logged by then."""
    log = Log()
    try:
        line = options.parse(argv)
        if line.options.get("version"):
            return _version()
        if line.options.get("help") or not line.command:
            from runtime.oci.cli.help import usage

            print(usage(line.arguments[0] if line.arguments else ""))
            return 0
        at = context.make(line.options)
        log = at.log
        if line.options.get("criu"):
            log.warning("--criu has no effect: checkpoints are not supported")
        log.debug(" ".join((line.command, *line.arguments[:1])))
        name = f"runtime.oci.cli.{_MODULES[line.command]}"
        __import__(name)
        module = sys.modules[name]
        command: Run = getattr(module, _FUNCTIONS.get(line.command, line.command))
        return command(at, line.flags, line.arguments)
    except (RuntimeFault, OSError) as error:
        log.error(_sentence(error))
        return _FAILED
    except KeyboardInterrupt:
        return 130


def _sentence(error: BaseException) -> str:
    if isinstance(error, RuntimeFault):
        return str(error)
    assert isinstance(error, OSError)
    about = f" {error.filename}" if error.filename else ""
    return f"{os.strerror(error.errno or 0).lower()}{about}" if error.errno else str(error)


def _version() -> int:
    from runtime.oci.cli import store

    print(f"kubelite-oci version {store.VERSION}\nspec: {store.OCI_VERSION}")
    return 0
