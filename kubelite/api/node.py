"""The interface between the API's routes and the daemon.

The daemon implements `NodeApi`; tests use a fake. Documents are plain dictionaries in Kubernetes' JSON form (the
store's `Record.doc`), so that most requests need no typed object. Errors are `runtime.errors.RuntimeFault`, whose
`reason` determines the HTTP code (see errors.py), or `ApiError`.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import IO, TYPE_CHECKING, Literal, NotRequired, Protocol, TypedDict

from kubelite.kube.json import Json
from kubelite.kube.pod_security import PodSecurity
from kubelite.settings import Settings
from kubelite.sources.diff import DiffEntry
from kubelite.sources.ownership import NONE_GIVEN, Owners
from kubelite.streaming.session import ExecSession

if TYPE_CHECKING:
    from kubelite.accounts.tokens import Tokens
    from kubelite.controllers.eviction import EvictionOptions

Progress = Callable[[Json], None]
Propagation = Literal["Background", "Foreground", "Orphan"]  # what is deleted with an object, and when


class RecordLike(Protocol):
    """The part of `state.store.Record` that the API reads. `doc` is the whole object, status included."""

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
    """A subscription to changes. The caller must end it with `close()`."""

    async def next(self, timeout: float | None = None) -> ChangeLike | None:
        """Return the next change, or None after `timeout` seconds or if the watch was closed. Raises an error whose
        `reason` is "Expired" if too many changes are pending."""
        ...

    def close(self) -> None: ...


class StoreView(Protocol):
    """Read access to the store. Reads are synchronous and cheap. `watch` yields every change after `since` (None: from
    now on). It raises an error whose `reason` is "Expired" if the store no longer has all changes after `since`;
    clients then list again."""

    @property
    def resource_version(self) -> int: ...
    def get(self, kind: str, namespace: str, name: str) -> RecordLike | None: ...
    def list(self, kind: str, namespace: str | None = None) -> Sequence[RecordLike]: ...
    def watch(
        self, kind: str | None = None, since: int | None = None, limit: int | None = None
    ) -> WatchLike: ...


class ManifestProblem(TypedDict):
    line: int
    field: str  # "spec.containers[0].imagee", "" if the file does not parse
    message: str
    kind: NotRequired[str]  # syntax, invalid, unsupported, duplicate, …
    object: NotRequired[
        str
    ]  # "Deployment default/web", the document's kind and name, as far as they are known


class ManifestFile(TypedDict):
    """One file of the manifests directory, as `kubelite get manifests` shows it."""

    file: str  # absolute path
    # Loaded, Ignored (no supported kind in it), Invalid (the last valid version still applies), Unreadable, Empty,
    # Writing
    status: str
    objects: list[str]  # "pod/default/web": the objects of its last valid version
    errors: list[ManifestProblem]
    loadedAt: str  # RFC 3339 time at which the last valid version was read, "" if never


class LastChange(TypedDict):
    """The last reconciliation of a pod that led to actions."""

    at: str  # RFC 3339
    decided: list[str]  # sentences, as in `Why`
    reasons: list[str]


class Why(TypedDict):
    """The last observation of a pod and the decision about it, with reasons, as sentences."""

    pod: str  # namespace/name
    status: NotRequired[str]  # as `get pods` shows it
    observedAt: str  # RFC 3339
    observed: list[str]  # sentences: the state of the sandbox and containers
    decided: list[str]  # sentences: the decision, which may be "nothing to do"
    reasons: list[str]  # sentences: the reasons of the decision
    lastChange: NotRequired[LastChange]  # the last round with actions, if the last round had none
    next: NotRequired[str]  # when and why the pod is checked next; "": at the next change
    current: NotRequired[dict[str, str]]  # container → id of the running instances that stay as they are
    actions: NotRequired[Json]  # the whole PodActions
    lastWords: NotRequired[list[str]]  # "main: cannot open /etc/app.conf", of containers that failed
    advice: NotRequired[list[str]]  # sentences: what to do next; none for a healthy pod


class ImagesApi(Protocol):
    """Operations on the node's images. They raise ImageError, for example for an image that is not on the node."""

    def inspect(self, text: str) -> Json: ...
    def history(self, text: str) -> list[Json]: ...
    def spool(self) -> IO[bytes]:
        """Return an unnamed file on the image store's file system, for an uploaded archive. The kernel frees its space
        even if the daemon is killed."""
        ...

    async def push(
        self, reference: str, target: str, compression: Json, progress: Progress
    ) -> list[Json]: ...
    async def save(self, references: list[str], path: str, form: str, progress: Progress) -> list[Json]: ...
    async def tag(self, reference: str, target: str) -> Json: ...
    async def prune(self, *, every: bool, older: float, cache: bool = True) -> Json:
        """Remove unused images. `every`: also those with a tag; `older`: only those unused for this many seconds;
        `cache`: also the build cache."""
        ...

    async def repair(self, *, deep: bool) -> list[str]: ...
    async def disk_usage(self, *, verbose: bool = False) -> list[Json]:
        """Return [{"type", "total", "active", "size", "reclaimable"}], sizes in bytes."""
        ...


class RevisionLike(Protocol):
    """A version of a manifest file (state.history.Revision). `at` is in Unix seconds."""

    @property
    def number(self) -> int: ...
    @property
    def at(self) -> float: ...
    @property
    def text(self) -> str: ...


class HistoryApi(Protocol):
    """The node's history. Methods raise ApiError: NotFound, or Expired for a time before the history starts."""

    async def of_object(
        self, namespace: str, name: str, *, kind: str, since: float, limit: int | None
    ) -> Json:
        """Return {"pod" or, in lower case, another kind, "since": start of history, "entries": [{"time", "uid", "what",
        "reason", "message"}]}, with the oldest entry first."""
        ...

    async def objects_at(self, kind: str, at: float) -> list[Json]:
        """Return every pod, or workload of a kind, as it was at `at` (Unix seconds)."""
        ...

    async def revisions(self, ref: Json) -> tuple[str, Sequence[RevisionLike]]:
        """Return the manifest file that defines an object (or {"file"}), and its versions, oldest first."""
        ...

    async def roll_back(self, ref: Json, *, number: int | None, dry_run: bool) -> Json:
        """Write an earlier version of a manifest; return {"file", "from", "to", "revision", "diff"}."""


class BuildsApi(Protocol):
    """The operations of the node that an image build uses."""

    def about(self) -> Json:
        """Return {"images": the store's directory, "cgroupParent", "memory": bytes that a RUN may use, None: no limit,
        "socketcall": whether a RUN may call socketcall(2), "apparmor": the profile of a RUN, "": none}."""
        ...

    def attach(self, pid: int) -> AsyncGenerator[Json, None]:
        """Attach a process's network namespace to the pod network and yield {"address"}. Closing the generator detaches
        it."""
        ...


class ClusterApi(Protocol):
    """The node's membership in a cluster (kubelite.daemon.cluster.node_cluster). Methods raise ApiError."""

    def status(self) -> Json: ...
    async def join(self, wanted: Json) -> Json: ...
    async def leave(self, *, force: bool, seconds: float) -> Json: ...


class PagesLike(Protocol):
    """Metrics in Prometheus' text formats, by the name of a page, and kubelet's Summary API."""

    @property
    def names(self) -> tuple[str, ...]: ...

    async def render(self, name: str, *, openmetrics: bool, compressed: bool) -> bytes: ...

    async def summary(self) -> Json: ...


class NodeApi(Protocol):
    """Everything the API needs from the daemon."""

    @property
    def store(self) -> StoreView: ...

    @property
    def settings(self) -> Settings: ...

    @property
    def cluster(self) -> ClusterApi | None:
        """The node's membership in a cluster, None until the node is ready."""
        ...

    @property
    def node_name(self) -> str: ...

    @property
    def pod_security(self) -> PodSecurity: ...

    @property
    def manifests_dir(self) -> str: ...

    def node(self) -> Json:
        """Return the v1 Node: metadata, status.{addresses, capacity, allocatable, nodeInfo, conditions}."""
        ...

    async def patch_node(self, patch: Json) -> Json:
        """Change labels, annotations, taints or unschedulable by a merge patch; return the new document. Raises
        ForbiddenPatch for any other field, InvalidPatch for a value that a field cannot have, StalePatch if the patch
        names another version or uid."""
        ...

    def ready(self) -> tuple[bool, str]:
        """Return whether the node is ready (manifests read, not shutting down), and if not, why."""
        ...

    async def kubeconfig(self, user: str, groups: list[str], seconds: float) -> Json:
        """Open the API's TLS port, and issue a client certificate for a user, valid for `seconds`. Return {"server":
        URL, "authority", "certificate", "key"}, the last three PEM. Raises ApiError NotFound if the node has no such
        port."""
        ...

    async def kube_authority(self) -> Json:
        """Return {"server": URL, "authority": PEM} of the API's TLS port without opening it. Raises ApiError NotFound
        if the node has no such port."""
        ...

    @property
    def tokens(self) -> Tokens:
        """What issues and checks the tokens of ServiceAccounts."""
        ...

    def authority(self) -> str | None:
        """Return the certificate (PEM) that pods trust as that of the API; None while they cannot reach it."""
        ...

    async def events_settled(self) -> None:
        """Return when the store has every event recorded so far."""
        ...

    # manifests
    def manifests(self) -> list[ManifestFile]: ...

    async def rescan(self, owners: Owners = NONE_GIVEN) -> None:
        """Read the manifests directory now; return when the store matches it. `owners`: metadata.managedFields of the
        objects that the API has changed there."""
        ...

    async def diff(self, text: str, *, file: str) -> list[DiffEntry]:
        """Describe the effects of applying these documents. The text must be valid."""
        ...

    @property
    def history(self) -> HistoryApi: ...

    # pods
    async def why(self, namespace: str, name: str) -> Why | None: ...

    async def delete_pod(self, namespace: str, name: str, *, grace: int | None) -> RecordLike | None:
        """Begin a graceful deletion. `grace`: seconds (0: at once; None: the pod's own). Return the record with its
        deletionTimestamp, or None if there is no such pod. A further call can only shorten the grace period."""
        ...

    async def evict_pod(self, namespace: str, name: str, options: EvictionOptions) -> None:
        """Begin the deletion of a pod if its PodDisruptionBudget allows that. Raises ApiError: NotFound, Conflict,
        TooManyRequests, InternalError (several budgets select the pod)."""
        ...

    async def delete_workload(self, uid: str, policy: Propagation) -> RecordLike | None:
        """Delete a workload, or begin its deletion (policies Foreground and Orphan). Return its last record, or None if
        there is no such object."""
        ...

    async def end_namespace(self, name: str) -> None:
        """Record that a namespace is terminated, whether it has a document or not."""
        ...

    def container_log_dir(self, pod: Json, container: str) -> str:
        """Return the directory of `<attempt>.log` and its rotated files, which may not exist."""
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
        """Start a process in the running container. Raises StateError if the container does not run, StartError if the
        program cannot be executed."""
        ...

    async def attach(self, pod: Json, container: str, *, stdin: bool) -> ExecSession:
        """Attach to a running container's future output and, with `stdin`, its input. Raises StateError if it does not
        run."""
        ...

    async def dial(self, pod: Json, port: int) -> socket.socket:
        """Return a non-blocking socket that is connected to a TCP port of the pod's own loopback interface. Raises
        OSError, or NotFoundError if the pod has no running sandbox."""
        ...

    async def set_ephemeral(self, uid: str, wanted: list[Json]) -> RecordLike | None:
        """Set the pod's ephemeral containers; `wanted` may only add some. Return None if there is no such pod. Raises
        InvalidObject, and Forbidden if Pod Security admission refuses the pod."""
        ...

    async def change_object(self, uid: str, change: Callable[[Json], Json]) -> RecordLike | None:
        """Apply `change` to a recorded document. Return None if there is no such object."""
        ...

    async def trace(self, namespace: str, name: str) -> Json | None:
        """Return the steps of a pod's start: {"pod", "uid", "steps": [{"at": Unix seconds, "step", "container"?,
        "detail"?, "took"?: seconds}]}."""
        ...

    async def inspect(self, ref: str) -> Json | None:
        """Return everything known about a container (by a prefix of its id), a pod ("namespace/pod" or "pod") or an
        image; None if there is none."""
        ...

    async def processes(self, namespace: str, name: str, container: str) -> list[Json] | None:
        """Return the processes in a container (kubelite.telemetry.sampling.processes); None if it does not run."""
        ...

    def stats(self) -> Json: ...
    async def usage(self) -> Json:
        """Return the usage counters of node, pods and containers (kubelite.telemetry.sampling.usage)."""
        ...

    def pages(self) -> PagesLike:
        """Return the metrics pages, which measure when they are rendered."""
        ...

    # images
    def images(self) -> list[Json]:
        """Return [{"id", "reference", "repoDigests", "size", "created", "architecture"}]."""
        ...

    async def pull(self, reference: str, progress: Progress) -> Json: ...
    async def login(self, registry: str, username: str, password: str) -> Json:
        """Try the login at the registry, store it and return {"file": path}. Raises ImageError if the registry refuses
        it."""
        ...

    async def logout(self, registry: str) -> bool:
        """Remove the login of a registry ("": all logins). Return False if there was none."""
        ...

    async def load(self, path: str, progress: Progress, *, shown: str = "") -> list[Json]:
        """Load an archive. Error messages name it by `shown` instead of `path`, if given."""
        ...

    async def pack(self, request: Json) -> Json:
        """Pack an image from {"programs": [path or name], "reference", "files": ["HOST[:IMAGE]"], "entrypoint"?,
        "cmd"?, "env": [], "workdir", "user"}, as `runtime.images.client.ImageClient.pack` does."""
        ...

    @property
    def images_api(self) -> ImagesApi: ...

    @property
    def builds_api(self) -> BuildsApi: ...

    async def remove_image(self, reference: str, *, force: bool = False) -> Json | None:
        """Return {"untagged": […], "deleted": […], "freed": bytes}; None if there is no such image. Raises ImageError
        with reason ImageInUse if a container uses it."""
        ...

    async def repair(self) -> list[str]:
        """Repair the network. Return one sentence for each repair and for each damage that remains."""
        ...

    async def doctor(self, *, deep: bool = False) -> list[Json]:
        """Return the problems of the node: [{"level": "error|warning", "check", "message", "fix"?}]. `deep`: also read
        every blob of the images."""
        ...
