"""What a pod gets before it is stored, whoever creates it: the node's name, priority, own users, defaults of its
namespace; or a refusal."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from kubelite.kube.errors import Forbidden
from kubelite.kube.json import Json
from kubelite.kube.objects import ACCOUNT, Automount, own_to_node, source_of
from kubelite.kube.times import rfc3339
from kubelite.node.model.priority import KIND as PRIORITY_CLASS
from kubelite.node.model.spec_cache import with_changes
from kubelite.policies.limit_range import KIND as LIMIT_RANGE
from kubelite.policies.rules import Rules, rules_of
from kubelite.policies.token_volumes import token_volumes
from manifests.types.core import Pod, PodSpec
from state.store import Store


class Refused(Exception):
    """A pod is not admitted: `pods "web-x2k4p" is forbidden: …`."""


class Admission:
    """Admits the pods that controllers create, as `kubelite.sources.directory` admits those of manifests.

    `refusal` returns why a pod is refused, "" if it is not; `with_defaults` adds the node's own defaults; `offer` gets
    a pod's uid, its spec as it is stored, and the typed form of that spec, so that it need not be parsed again.
    """

    def __init__(
        self,
        store: Store,
        *,
        node_name: str = "",
        automount: Automount = Automount.NONE,  # which pods get a token of the API
        priorities: Mapping[str, int] | None = None,  # PriorityClass in the settings → value
        refusal: Callable[[Pod], str] = lambda _pod: "",
        with_defaults: Callable[[Pod], Pod] = lambda pod: pod,
        offer: Callable[[str, Json, PodSpec], None] = lambda _uid, _document, _spec: None,
    ) -> None:
        self._store = store
        self._node_name = node_name
        self._automount = automount
        self._priorities = priorities or {}
        self._refusal = refusal
        self._with_defaults = with_defaults
        self._offer = offer
        self._last: tuple[Json, PodSpec] | None = None  # the last spec, and its typed form

    def refused(self, doc: Json) -> str:
        """Return why a pod would not be admitted, "" if it would be. Raises InvalidObject."""
        metadata = doc["metadata"]
        name = metadata.get("name") or metadata.get("generateName", "")
        if said := self._refusal(self._typed({**doc, "metadata": {**metadata, "name": name}})):
            return said
        try:
            self._store.check("Pod", self._rules(doc).new(doc))
        except Forbidden as error:
            return str(error)
        return ""

    def admit(self, doc: Json, *, uid: str, now: float) -> Json:
        """Return a pod as it is stored. Raises Refused, and InvalidObject. The store asks the quotas when it adds the
        pod."""
        if annotations := doc["metadata"].get("annotations"):
            doc = {**doc, "metadata": {**doc["metadata"], "annotations": own_to_node(annotations)}}
        pod = self._typed(doc)
        if said := self._refusal(pod):
            raise Refused(said)
        spec = self._with_defaults(pod).spec
        given = doc["spec"] if spec is pod.spec else spec.to_json()
        ready = {**doc, "spec": {"nodeName": self._node_name, **given} if self._node_name else given}
        try:
            ready = self._rules(doc).new(ready)
        except Forbidden as error:
            raise Refused(str(error)) from error
        if (typed := with_changes(spec, given, ready["spec"])) is not None:
            self._offer(uid, ready["spec"], typed)
        metadata = {**ready["metadata"], "uid": uid, "creationTimestamp": rfc3339(now), "generation": 1}
        return {**ready, "metadata": metadata, "status": {"phase": "Pending"}}

    def check(self, doc: Json) -> None:
        """Check an object other than a pod by the rules and quotas of its namespace. Raises Refused."""
        try:
            self._store.check(doc["kind"], self._rules(doc).new(doc))
        except Forbidden as error:
            raise Refused(str(error)) from error

    def _typed(self, doc: Json) -> Pod:
        """Parse a pod. The pods of one template share its spec, which is parsed once."""
        if self._last is None or self._last[0] is not doc["spec"]:
            self._last = doc["spec"], Pod.parse(doc).spec
        return Pod.parse({**doc, "spec": self._last[1]})

    def _rules(self, doc: Json) -> Rules:
        """Return the rules of an object's namespace."""
        classes = (record.doc for record in self._store.list(PRIORITY_CLASS) if source_of(record))
        namespace = doc["metadata"].get("namespace", "")
        ranges = (record.doc for record in self._store.list(LIMIT_RANGE, namespace))
        accounts = (record.doc for record in self._store.list(ACCOUNT, namespace))
        tokens = token_volumes(self._automount, accounts)
        return rules_of(classes, ranges, self._priorities, tokens=tokens)
