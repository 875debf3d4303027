"""What the API's routes need of the node agent: the seam between HTTP and the daemon.

`NodeApi` is implemented in the daemon; tests hold a fake. Documents are plain dictionaries in Kubernetes' JSON form
(the store's `Record.doc`), so that answering a request never builds a typed object. Errors are
`runtime.errors.RuntimeFault` (their `reason` picks the HTTP code, see errors.py) or `ApiError`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import IO, NotRequired, Protocol, TypedDict

from kubelite.kube.json import Json
from kubelite.sources.diff import DiffEntry

Progress = Callable[[Json], None]


class RecordLike(Protocol):
    """The part of `state.store.Record` that is read here. `doc` is the whole object, status included."""

    @property
    def kind(self) -> str: ...
    @property
    def namespace(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def uid(self) -> str: ...
    @property
    def resource_version(self) -> int: ...
    @property
    def doc(self) -> Json: ...


class ChangeLike(Protocol):
    @property
    def type(self) -> str: ...  # ADDED, MODIFIED, DELETED

    @property
    def record(self) -> RecordLike: ...


class WatchLike(Protocol):
    """A subscription to changes; always left by `close()`."""

    async def next(self, timeout: float | None = None) -> ChangeLike | None:
        """The next change, or None when `timeout` seconds passed or the watch was closed. An error whose `reason` is
        "Expired" when too many wait to be fetched."""
        ...

    def close(self) -> None: ...


class StoreView(Protocol):
    """Reads of the store: free, synchronous; `watch` yields every change after `since` (None: from now on).

    A `since` that history no longer reaches raises an error whose `reason` is "Expired"; clients then list again.
    """

    @property
    def resource_version(self) -> int: ...
    def get(self, kind: str, namespace: str, name: str) -> RecordLike | None: ...
    def list(self, kind: str, namespace: str | None = None) -> Sequence[RecordLike]: ...
    def watch(
        self, kind: str | None = None, since: int | None = None, limit: int | None = None
    ) -> WatchLike: ...


class ManifestProblem(TypedDict):
    line: int
    field: str  # "spec.containers[0].imagee", "" when the file does not parse
    message: str
    kind: NotRequired[str]  # syntax, invalid, unsupported, duplicate, …


class ManifestFile(TypedDict):
    """One file of the watched directory, as `kubelite get manifests` shows it."""

    file: str  # absolute path
    status: str  # Loaded, Invalid (last good version runs on), Unreadable, Empty
    objects: list[str]  # "pod/default/web", what it gives now (its last good version)
    errors: list[ManifestProblem]
    loadedAt: str  # RFC 3339, when the last good version was read, "" never


class Why(TypedDict):
    """The last observation, decision and reason of one pod, in words."""

    pod: str  # namespace/name
    status: NotRequired[str]  # as `get pods` shows it
    observedAt: str  # RFC 3339
    observed: list[str]  # sentences: what was seen of sandbox and containers
    decided: list[str]  # sentences: what was decided, "nothing to do" included
    reasons: list[str]  # sentences: why
    next: NotRequired[str]  # when it is looked at again and what for, "" = on the next change
    actions: NotRequired[Json]  # the PodActions whole
    lastWords: NotRequired[list[str]]  # "main: cannot open /etc/app.conf", of containers that ended badly
    advice: NotRequired[list[str]]  # sentences: what to do next, none for a pod that is well


class ExecSession(Protocol):
    """A process running in a container, started by the shim. The descriptors are non-blocking-able and owned by the
    session: `close()` closes what is still open. With a tty, stdin and stdout are the same pty master, stderr None.
    """

    @property
    def stdin(self) -> int | None: ...
    @property
    def stdout(self) -> int | None: ...
    @property
    def stderr(self) -> int | None: ...
    @property
    def tty(self) -> bool: ...

    def close_stdin(self) -> None:
        """The client has no more input (pipes only; nothing happens with a tty). `stdin` is None afterwards."""
        ...

    async def resize(self, width: int, height: int) -> None: ...
    async def wait(self) -> int:
        """The exit code (128 + signal when killed by one)."""
        ...

    async def close(self, *, kill: bool = True) -> None:
        """Close the descriptors; with `kill` also end the process if it still runs (the client went away)."""
        ...


class ImagesApi(Protocol):
    """What looks at images, keeps them in order and gives them on. ImageError for what is not here."""

    def inspect(self, text: str) -> Json: ...
    def history(self, text: str) -> list[Json]: ...
    def spool(self) -> IO[bytes]:
        """A file without a name on the image store's file system, for an archive that comes over the wire: whatever
        ends the daemon frees its room."""
        ...

    async def push(
        self, reference: str, target: str, compression: Json, progress: Progress
    ) -> list[Json]: ...
    async def save(self, references: list[str], path: str, form: str, progress: Progress) -> list[Json]: ...
    async def tag(self, reference: str, target: str) -> Json: ...
    async def prune(self, *, every: bool, older: float) -> Json:
        """`every`: named ones too; `older`: seconds since they were used for the last time."""
        ...

    async def repair(self, *, deep: bool) -> list[str]: ...
    async def disk_usage(self) -> list[Json]:
        """[{"type", "total", "active", "size", "reclaimable"}], bytes."""
        ...


class RevisionLike(Protocol):
    """A version of a manifest file (state.history.Revision): `at` in Unix seconds."""

    @property
    def number(self) -> int: ...
    @property
    def at(self) -> float: ...
    @property
    def text(self) -> str: ...


class HistoryApi(Protocol):
    """What was. Raises ApiError: NotFound, Expired for what is not known any more."""

    async def of_pod(self, namespace: str, name: str, *, since: float, limit: int | None) -> Json:
        """{"pod", "since": known since, "entries": [{"time", "uid", "what", "reason", "message"}]}, oldest first."""
        ...

    async def pods_at(self, at: float) -> list[Json]:
        """Every pod as it was at `at` (Unix seconds)."""
        ...

    async def revisions(self, ref: Json) -> tuple[str, Sequence[RevisionLike]]:
        """The manifest file with an object (or {"file"}) and its versions, oldest first."""
        ...

    async def roll_back(self, ref: Json, *, number: int | None, dry_run: bool) -> Json:
        """Write a version back: {"file", "from", "to", "revision", "diff"}."""


class BuildsApi(Protocol):
    """What a build asks of the node it runs on."""

    def about(self) -> Json:
        """{"images": the store's directory, "cgroupParent"}"""
        ...

    def attach(self, pid: int) -> AsyncGenerator[Json, None]:
        """{"address"} once the process's network namespace is in the pods' network; until it is closed."""
        ...


class NodeApi(Protocol):
    """Everything the API asks of the daemon."""

    @property
    def store(self) -> StoreView: ...

    @property
    def node_name(self) -> str: ...

    @property
    def manifests_dir(self) -> str: ...

    def node(self) -> Json:
        """The one v1 Node: metadata, status.{addresses, capacity, allocatable, nodeInfo, conditions}."""
        ...

    async def patch_node(self, patch: Json) -> Json:
        """Change its labels, annotations, taints, unschedulable by a merge patch; the new document. Raises NotForPeople
        for anything else."""
        ...

    def ready(self) -> tuple[bool, str]:
        """Whether the node works (sources read once, shims adopted), and the sentence of why not."""
        ...

    async def events_settled(self) -> None:
        """Return when the store holds every event that was recorded so far."""
        ...

    # manifests
    def manifests(self) -> list[ManifestFile]: ...

    async def rescan(self) -> None:
        """Look at the manifests directory now; return when the store holds what it says."""
        ...

    async def diff(self, text: str, *, file: str) -> list[DiffEntry]:
        """What applying these documents would do, before it does; text is already validated."""
        ...

    @property
    def history(self) -> HistoryApi: ...

    # pods
    async def why(self, namespace: str, name: str) -> Why | None: ...

    async def delete_pod(self, namespace: str, name: str, *, grace: int | None) -> RecordLike | None:
        """Begin a graceful deletion (grace 0: at once). Gives the record with its deletionTimestamp, None = no such
        pod. Idempotent: again can only shorten the grace."""
        ...

    def container_log_dir(self, pod: Json, container: str) -> str:
        """The directory with `<attempt>.log` and its rotated files; need not exist."""
        ...

    async def exec(
        self,
        pod: Json,
        container: str,
        command: list[str],
        *,
        stdin: bool,
        tty: bool,
        width: int,
        height: int,
    ) -> ExecSession:
        """Start a process in the container's running instance. StateError when it does not run; StartError when the
        program cannot be executed."""
        ...

    async def attach(self, pod: Json, container: str, *, stdin: bool) -> ExecSession:
        """A running container's own output from now on, and its stdin. StateError when it does not run or has none."""
        ...

    async def set_ephemeral(self, uid: str, wanted: list[Json]) -> RecordLike | None:
        """The pod with these ephemeral containers, which only get more. InvalidObject; None = no such pod."""
        ...

    async def change_pod(self, uid: str, change: Callable[[Json], Json]) -> RecordLike | None:
        """The pod's document as `change` makes it; None = no such pod."""
        ...

    async def trace(self, namespace: str, name: str) -> Json | None:
        """The start of a pod step by step: {"pod", "uid", "steps": [{"at": unix seconds, "step", "container"?,
        "detail"?, "took"?: seconds}]}."""
        ...

    async def inspect(self, ref: str) -> Json | None:
        """Everything known of a container id (prefix), "namespace/pod" or pod, or image reference."""
        ...

    async def processes(self, namespace: str, name: str, container: str) -> list[Json] | None:
        """What runs in a container now (kubelite.telemetry.sampling.processes); None when it does not run."""
        ...

    def stats(self) -> Json: ...
    async def usage(self) -> Json:
        """Counters of node, pods and containers now (kubelite.telemetry.sampling.usage)."""
        ...

    # images
    def images(self) -> list[Json]:
        """[{"id", "reference", "repoDigests", "size", "created", "architecture"}]"""
        ...

    async def pull(self, reference: str, progress: Progress) -> Json: ...
    async def login(self, registry: str, username: str, password: str) -> Json:
        """Ask the registry, then keep the login: {"file": where}. ImageError when it is refused."""
        ...

    async def logout(self, registry: str) -> bool:
        """Forget it ("" = every one); False when there was none."""
        ...

    async def load(self, path: str, progress: Progress, *, shown: str = "") -> list[Json]:
        """`shown`: what errors call the archive."""
        ...

    async def pack(self, request: Json) -> Json:
        """{"programs": [path or name], "reference", "files": ["HOST[:IMAGE]"], "entrypoint"?, "cmd"?, "env": [],
        "workdir", "user"}: what `runtime.images.client.ImageClient.pack` takes."""
        ...

    @property
    def images_api(self) -> ImagesApi: ...

    @property
    def builds_api(self) -> BuildsApi: ...

    async def remove_image(self, reference: str, *, force: bool = False) -> Json | None:
        """{"untagged": […], "deleted": […], "freed": bytes}; ImageError ImageInUse while a container uses it."""
        ...

    async def doctor(self, *, deep: bool = False) -> list[Json]:
        """The node\'s invariants that do not hold: [{"level": "error|warning", "check", "message", "fix"?}].
        `deep`: every blob of the images is read."""
        ...
