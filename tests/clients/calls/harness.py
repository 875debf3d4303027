"""Runs the calls of one client, and prints a line of JSON for each. Uses the standard library only: it runs with the
Python of the clients, not with that of the tests.

A module of calls defines a function for each operation that the client has, named as the operation with `_` for `-`,
and ends with `run(globals())`. A call that fails raises.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

NAMESPACE = "clients"
LABEL = f"client={os.environ.get('CLIENT', 'none')}"
NAME = os.environ.get("CLIENT", "none")
DEADLINE = float(os.environ.get("CLIENT_DEADLINE", "30"))  # seconds for one call


def config_map(name: str, **data: str) -> dict[str, Any]:
    """A ConfigMap of this client."""
    key, _, value = LABEL.partition("=")
    metadata = {"name": f"{NAME}-{name}", "namespace": NAMESPACE, "labels": {key: value}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def until(condition: Callable[[], Any], what: str) -> Any:
    """Wait until a condition is true, and return its value."""
    end = time.monotonic() + DEADLINE
    while not (found := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"waited for {what}")
        time.sleep(0.1)
    return found


def same(found: Any, expected: Any) -> None:
    if found != expected:
        raise AssertionError(f"{found!r} is not {expected!r}")


def run(module: Mapping[str, Any]) -> None:
    """Call the functions of a module in their order. Those that begin with _ are no operations."""
    own = {name: one for name, one in module.items() if inspect.isfunction(one) and not name.startswith("_")}
    for name, function in own.items():
        if function.__module__ != module["__name__"]:
            continue
        began = time.monotonic()
        said: dict[str, Any] = {"operation": name.replace("_", "-"), "ok": True}
        try:
            function()
        except Exception as error:  # noqa: BLE001  a failed call is a result, with its traceback
            said |= {"ok": False, "error": f"{type(error).__name__}: {error}"[:2000]}
            traceback.print_exc(file=sys.stderr)
        said["seconds"] = round(time.monotonic() - began, 2)
        print(json.dumps(said), flush=True)
