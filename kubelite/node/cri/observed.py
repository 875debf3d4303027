"""Convert the records of shims and of the image store to the node's types (`model/cri.py`)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import fields, replace
from typing import Any

from kubelite.node.cri.shim_connection import rates_of
from kubelite.node.model.cri import ContainerState, ObservedContainer, ObservedImage, ObservedSandbox
from runtime.errors import ImageError
from runtime.images.client import ImageClient
from runtime.images.store.store import ImageRecord
from runtime.shim.protocol import ContainerRecord, ContainerStatus, SandboxRecord
from state.store import ContainerRow

_STATES = {
    ContainerStatus.CREATED: ContainerState.CREATED,
    ContainerStatus.RUNNING: ContainerState.RUNNING,
    ContainerStatus.STOPPED: ContainerState.EXITED,
}


def observed_container(
    record: ContainerRecord, *, sandbox: str, lost: bool, message: Callable[[ContainerRecord], str]
) -> ObservedContainer:
    """`message(record)` returns the termination message of an ended container. `lost`: the sandbox is gone."""
    state = _STATES.get(ContainerStatus(record.status), ContainerState.UNKNOWN)
    if lost and state is not ContainerState.EXITED:
        state = ContainerState.UNKNOWN
    labels = record.labels
    return ObservedContainer(
        id=record.id,
        name=record.name,
        attempt=record.attempt,
        state=state,
        image=labels.get("image", ""),
        image_id=labels.get("image_id", ""),
        pid=record.pid,
        created_at=record.created_at,
        started_at=record.started_at,
        finished_at=record.finished_at,
        exit_code=record.exit_code,
        signal=record.signal,
        oom_killed=record.oom_killed,
        reason=record.reason,
        message=record.message or (message(record) if state is ContainerState.EXITED else ""),
        spec_hash=labels.get("spec_hash", ""),
        resources_hash=labels.get("resources_hash", ""),
        content_hash=labels.get("content_hash", ""),
        stop_deadline=record.stop_deadline,
        log_path=record.log_path,
        cgroup=record.cgroup,
        bundle=record.bundle,
        sandbox_id=sandbox,
        crash_count=int(labels.get("crash_count") or 0),
        stop_signal=record.stop_signal,
        user=labels.get("user", ""),
        post_start=labels.get("post_start", ""),
        post_start_error=labels.get("post_start_error", ""),
        killed_for=labels.get("killed_for", ""),
        checks_hash=labels.get("checks_hash", ""),
    )


_FIELDS = tuple(f.name for f in fields(ContainerRecord))


def _values(record: ContainerRecord) -> dict[str, Any]:
    """Return the record as a dict. Its values are the record's own; do not change them."""
    return {name: getattr(record, name) for name in _FIELDS}


def observed_sandbox(record: SandboxRecord) -> ObservedSandbox:
    return ObservedSandbox(
        id=record.sandbox_id,
        ready=record.host_network or bool(record.annotations.get("ip")),
        pid=record.pid,
        created_at=record.created_at,
        ip=record.annotations.get("ip", ""),
        ip6=record.annotations.get("ip6", ""),
        host_network=record.host_network,
        spec_hash=record.annotations.get("spec_hash", ""),
        cgroup=record.cgroup,
        resources_hash=record.annotations.get("resources_hash", ""),
        pause=record.pause,
        bandwidth=rates_of(record),
    )


def observed_image(record: ImageRecord, login: tuple[str, str] | None = None) -> ObservedImage:
    return ObservedImage(
        id=record.id,
        reference=record.reference,
        repo_digests=tuple(record.repo_digests),
        size=record.size,
        layers=tuple(record.layers),
        config=dict(record.config),
        login=login,
    )


class ObservedImages:
    """The store's images by the names that pods use. A start needs the same image many times, so each name is looked up
    once per state of the store."""

    def __init__(self, client: ImageClient) -> None:
        self._client = client
        self._found: dict[str, ObservedImage | None] = {}  # by name, for `_records`
        self._records: tuple[ImageRecord, ...] = ()

    def get(self, reference: str) -> ObservedImage | None:
        """Return the image. None also for an invalid name (a pull then fails with InvalidImageName) and for an image
        that is being removed."""
        records = self._client.store.list()
        if records is not self._records:
            self._records, self._found = records, {}
        if reference not in self._found:
            with contextlib.suppress(ImageError):
                record = self._client.store.get(reference)
                self._found[reference] = observed_image(record) if record else None
        found = self._found.get(reference)
        return None if found is not None and self._client.limits.is_being_removed(found.id) else found


def lost_rows(rows: Iterable[ContainerRow], now: float) -> dict[str, ContainerRow | None]:
    """Return the rows of instances that ran in a lost sandbox, marked as ended (exit code 137, SIGKILL)."""
    ended = {"status": "stopped", "pid": 0, "finished_at": now, "exit_code": 137, "signal": 9}
    return {
        row.id: replace(row, state="stopped", updated_at=now, doc={**row.doc, **ended})
        for row in rows
        if row.state in (ContainerStatus.RUNNING, ContainerStatus.CREATED)
    }


def rows_of(uid: str, records: Iterable[ContainerRecord], now: float) -> dict[str, ContainerRow | None]:
    return {r.id: ContainerRow(r.id, uid, r.name, r.attempt, r.status, now, _values(r)) for r in records}
