"""The audit log: a JSON line for each write, exec (`kubelite cp` uses it, too), attach, port-forward and refusal.

Each line is an event of audit.k8s.io/v1 at level Metadata (Kubernetes' docs, "Auditing"). It has no bodies, so no
passwords. A WebSocket has two events: ResponseStarted when it is accepted, ResponseComplete when it ends. For
kubelite's own paths, an annotation names the objects.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import time
import uuid
from typing import Any

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kubelite.api.guard import is_proxied
from kubelite.api.kube.resources import NAMESPACE_SUBRESOURCES
from kubelite.api.kube.routes import flag
from kubelite.api.peer import KEY, Peer
from kubelite.api.secure.users import user_of
from kubelite.api.upgrade import UPGRADED, upgrades
from kubelite.kube.json import Json
from kubelite.kube.times import rfc3339_micro

log = logging.getLogger(__name__)

OBJECTS = "kubelite.io/objects"  # annotation of an event
PID = "kubelite.io/pid"  # key in the `extra` field of an event's user
_NOTES = "kubelite.audit"  # key in the ASGI scope of a request
_VIOLATIONS = "kubelite.audit-violations"
AUDIT_VIOLATIONS = "pod-security.kubernetes.io/audit-violations"  # annotation of an event, as on a cluster
_VERBS = {
    "GET": "get",
    "HEAD": "get",
    "POST": "create",
    "PUT": "update",
    "PATCH": "patch",
    "DELETE": "delete",
}
_QUIET = frozenset({"/kubelite/v1/diff"})  # a POST that changes nothing
_LONGEST_AGENT, _LONGEST_URI = 1024, 8192  # characters: long ones would rotate the lines of others away
_LAST = 64 * 1024  # bytes of a stream's end that are searched for its error


def note(request: HTTPConnection, *objects: str) -> None:
    """Add the objects of a request to its audit event."""
    notes = request.scope.get(_NOTES)
    if notes is not None:
        notes.extend(objects)


def note_violation(request: HTTPConnection, said: str) -> None:
    """Record that a pod of the request violates its namespace's audit level (Pod Security admission)."""
    violations = request.scope.get(_VIOLATIONS)
    if violations is not None:
        violations.append(said)


class AuditLog:
    """The log file. It is renamed to `.1` before it exceeds `max_bytes`; `files` includes the current file. If the disk
    is full, lines are lost; the daemon logs this once."""

    def __init__(self, path: str, *, max_bytes: int, files: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._files = files
        self._fd = -1
        self._size = 0
        self._failed = False

    def write(self, event: Json) -> None:
        line = json.dumps(event, separators=(",", ":")).encode() + b"\n"
        try:
            if self._fd < 0 or not self._same():
                self._open()
            if self._size and self._size + len(line) > self._max_bytes > 0:
                self._rotate()
            self._append(line)
            self._failed = False
        except OSError as error:
            if not self._failed:
                log.error("cannot write the audit log %s: %s", self._path, error.strerror)
            self._failed = True

    def _append(self, line: bytes) -> None:
        """Append the whole line or nothing of it. OSError if it does not fit."""
        written = os.write(self._fd, line)
        if written < len(line):
            os.ftruncate(self._fd, os.fstat(self._fd).st_size - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._size += written

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def _same(self) -> bool:
        """Whether the open file still has its name: logrotate or a person may have moved it."""
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(self._fd))
        except FileNotFoundError:
            return False

    def _open(self) -> None:
        self.close()
        os.makedirs(os.path.dirname(self._path), mode=0o755, exist_ok=True)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._fd = os.open(self._path, flags, 0o600)
        self._size = os.fstat(self._fd).st_size

    def _rotate(self) -> None:
        for number in range(self._files - 1, 0, -1):
            before = f"{self._path}.{number - 1}" if number > 1 else self._path
            try:
                os.replace(before, f"{self._path}.{number}")
            except FileNotFoundError:
                continue
        if self._files == 1:
            os.truncate(self._path, 0)
        self._open()


def is_audited(scope: Scope) -> bool:
    """Whether a request is recorded regardless of its answer."""
    if upgrades(scope):
        return True
    if scope["method"] not in ("GET", "HEAD"):
        return scope["path"] not in _QUIET
    return b"portForward=" in scope["query_string"] or is_proxied(scope["path"])


def object_of(path: str) -> Json:
    """Return the objectRef of a Kubernetes path; {} for other paths. A part after a namespace's name is a resource in
    it, or a subresource of it (apiserver pkg/endpoints/request/requestinfo.go, namespaceSubresources)."""
    parts = [part for part in path.split("/") if part]
    group = ""
    if parts[:1] == ["api"] and len(parts) > 2:
        version, rest = parts[1], parts[2:]
    elif parts[:1] == ["apis"] and len(parts) > 3:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return {}
    found: Json = {}
    if rest[0] == "namespaces" and len(rest) > 2 and rest[2] not in NAMESPACE_SUBRESOURCES:
        found["namespace"], rest = rest[1], rest[2:]
    found.update(zip(("resource", "name", "subresource"), rest, strict=False))
    return {**found, **({"apiGroup": group} if group else {}), "apiVersion": version}


def verb_of(scope: Scope) -> str:
    """Return the verb of a request: Kubernetes' (apiserver pkg/endpoints/request/requestinfo.go), or `portforward`."""
    connection = HTTPConnection(scope)
    if "portForward" in connection.query_params and scope["path"].startswith("/kubelite/"):
        return "portforward"
    verb = _VERBS.get(scope.get("method", "GET"), "get")
    found = object_of(scope["path"])
    if not found or "name" in found:
        return verb
    if verb == "get":
        return "watch" if flag(connection, "watch") else "list"
    return "deletecollection" if verb == "delete" else verb


class Audit:
    """ASGI middleware that writes the audit events of requests."""

    def __init__(self, app: ASGIApp, log: AuditLog) -> None:
        self._app = app
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        one = _Request(scope, self._log)
        try:
            await self._app(scope, receive, one.following(send))
        except BaseException:
            one.failed()
            raise
        finally:
            one.complete()


class _Request:
    def __init__(self, scope: Scope, log: AuditLog) -> None:
        self._scope = scope
        self._log = log
        self._id = str(uuid.uuid4())
        self._received = time.time()
        self._code = 0
        self._stream = False
        self._end = b""
        self._notes: list[str] = []
        self._violations: list[str] = []
        scope[_NOTES], scope[_VIOLATIONS] = self._notes, self._violations

    def following(self, send: Send) -> Send:
        async def wrapped(message: Message) -> None:
            self._see(message)
            await send(message)

        return wrapped

    def _see(self, message: Message) -> None:
        kind = message["type"]
        if kind in ("http.response.start", "websocket.http.response.start"):
            self._code = message["status"]
            self._stream = any(value == b"application/x-ndjson" for _, value in message.get("headers", ()))
        elif kind == "http.response.body" and self._stream:
            self._end = (self._end + message.get("body", b""))[-_LAST:]
        elif kind in ("websocket.accept", UPGRADED):
            self._code = 101
            self._write("ResponseStarted", {"code": 101})
        elif kind == "websocket.close" and not self._code:
            self._code = 403

    def failed(self) -> None:
        self._code = self._code or 500

    def complete(self) -> None:
        if is_audited(self._scope) or self._code in (401, 403, 421):
            self._write("ResponseComplete", _outcome(self._code, self._end))

    def _annotations(self) -> dict[str, str]:
        said = {OBJECTS: ", ".join(self._notes), AUDIT_VIOLATIONS: "; ".join(dict.fromkeys(self._violations))}
        return {key: text for key, text in said.items() if text}

    def _write(self, stage: str, outcome: Json) -> None:
        headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in self._scope["headers"]}
        query = self._scope["query_string"].decode("latin-1")
        path = self._scope["path"]
        # As it was sent: a "?" that is part of a name stays %3F.
        raw = self._scope.get("raw_path", b"").decode("latin-1") or path
        now = time.time()
        self._log.write(
            {
                "kind": "Event",
                "apiVersion": "audit.k8s.io/v1",
                "level": "Metadata",
                "auditID": self._id,
                "stage": stage,
                "requestURI": _shortened(f"{raw}{'?' if query else ''}{query}", _LONGEST_URI),
                "verb": verb_of(self._scope),
                "user": _user(self._scope),
                "userAgent": _shortened(headers.get("user-agent", ""), _LONGEST_AGENT),
                **({"objectRef": ref} if (ref := object_of(path)) else {}),
                "responseStatus": outcome,
                "requestReceivedTimestamp": rfc3339_micro(self._received),
                "stageTimestamp": rfc3339_micro(now),
                **({"annotations": annotations} if (annotations := self._annotations()) else {}),
            }
        )


def _shortened(text: str, longest: int) -> str:
    """Return a text that a client chooses, with a mark where it ends early (apiserver pkg/audit/request.go)."""
    return text if len(text) <= longest else f"{text[:longest]}...TRUNCATED"


def _user(scope: Scope) -> Json:
    """Return the user of a certificate or token, or else the process at the other end of the unix socket."""
    if (user := user_of(scope)) is not None:
        return user.info()
    peer: Peer | None = scope.get(KEY)
    if peer is None:
        return {}
    groups = [str(gid) for gid in dict.fromkeys((peer.gid, *peer.groups))]
    extra = {PID: [str(peer.pid)]}
    return {"username": f"uid:{peer.uid}", "uid": str(peer.uid), "groups": groups, "extra": extra}


def _outcome(code: int, end: bytes) -> Json:
    """Return the responseStatus. A stream begins with 200; the end of its body, `end`, says whether the work failed."""
    try:
        last: Any = json.loads(end.rstrip().rpartition(b"\n")[2]) if end else {}
    except ValueError:
        last = {}
    if isinstance(last, dict) and last.get("event") == "error":
        said = last.get("status") or {}
        return {key: said[key] for key in ("code", "reason", "message") if key in said}
    return {"code": code}
