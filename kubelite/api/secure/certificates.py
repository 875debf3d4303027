"""The daemon's side of the node's certificates: it asks `issue.py`, a process of its own, to make them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from typing import NamedTuple

from kubelite.kube.json import Json
from runtime.errors import RuntimeFault

_ISSUE = "kubelite.api.secure.issue"
TIMEOUT = 60.0  # seconds for a certificate; it takes 0.2
EARLY = 90 * 86400.0  # seconds before its end at which a server's certificate is due: a quarter of its life
_PODS_ONLY = "pods-only"  # file beside an authority that nobody but pods has asked for
#: The names by which clients on this machine and in pods reach an API server.
NAMES = (
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
)


class Login(NamedTuple):
    """What a client needs besides the server's address. PEM."""

    authority: str
    certificate: str
    key: str


def asked_for(directory: str) -> bool:
    """Whether somebody has asked for a kubeconfig before: the node has an authority, and not for its pods alone."""
    return os.path.exists(f"{directory}/ca.crt") and not os.path.exists(f"{directory}/{_PODS_ONLY}")


def authority(directory: str) -> str:
    """Return the certificate (PEM) of the node's authority. Raises OSError."""
    with open(f"{directory}/ca.crt", encoding="ascii") as file:
        return file.read()


def for_pods(directory: str) -> None:
    """Note that the authority that is about to be made is for pods alone. Raises OSError."""
    if not os.path.exists(f"{directory}/ca.crt"):
        os.makedirs(directory, mode=0o700, exist_ok=True)
        with open(f"{directory}/{_PODS_ONLY}", "w", encoding="ascii"):
            pass


def ask_for(directory: str) -> None:
    """Note that somebody has asked for a kubeconfig. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{directory}/{_PODS_ONLY}")


async def renew_server(directory: str, names: list[str], addresses: list[str]) -> float:
    """Make the server's certificate anew if that is due. Return when it expires, in Unix seconds. Raises
    RuntimeFault."""
    request = {"directory": directory, "server": {"names": names, "addresses": addresses}}
    return float((await ask(_ISSUE, request))["expires"])


async def issue(directory: str, user: str, groups: list[str], seconds: float) -> Login:
    """Return a new certificate of a client. Raises RuntimeFault."""
    client = {"user": user, "groups": groups, "seconds": seconds}
    said = await ask(_ISSUE, {"directory": directory, "client": client})
    return Login(said["authority"], said["certificate"], said["key"])


async def ask(module: str, request: Json) -> Json:
    """Run a program of ours that makes keys or certificates, and return its answer. Raises RuntimeFault."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", module,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    try:
        async with asyncio.timeout(TIMEOUT):
            output, errors = await process.communicate(json.dumps(request).encode())
        said: Json = json.loads(output)
    except TimeoutError:
        raise RuntimeFault(f"making a certificate takes longer than {TIMEOUT:.0f} s") from None
    except ValueError:
        last = errors.decode(errors="replace").strip().rpartition("\n")[2]
        raise RuntimeFault(
            f"cannot make a certificate: {last or f'exit code {process.returncode}'}"
        ) from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if "error" in said:
        raise RuntimeFault(said["error"])
    return said
