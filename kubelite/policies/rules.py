"""What a namespace's rules make of a pod or a claim before it is stored: a priority, defaults, or a refusal. Pure.

Pods of manifests and pods of workloads are admitted by the same rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from kubelite.kube.errors import Forbidden
from kubelite.kube.json import Json
from kubelite.node.model.priority import Classes, admitted, classes_of
from kubelite.policies import limit_range
from kubelite.policies.token_volumes import TokenVolumes

#: Kinds that are checked, and how messages call their objects.
_CHECKED = {"Pod": "pods", "PersistentVolumeClaim": "persistentvolumeclaims"}


@dataclass(frozen=True, slots=True)
class Rules:
    """`classes`: the node's PriorityClasses; `ranges`: by namespace, its LimitRanges, sorted by name; `ending`: the
    namespaces that are terminated; `tokens`: which pods get a token of the API."""

    classes: Classes = field(default_factory=lambda: classes_of((), {}))
    ranges: Mapping[str, Sequence[Json]] = field(default_factory=dict)
    ending: frozenset[str] = frozenset()
    tokens: TokenVolumes = field(default_factory=TokenVolumes)

    def new(self, doc: Json) -> Json:
        """Return a new object with what its namespace adds. Raises Forbidden."""
        if self.ending and doc["metadata"].get("namespace") in self.ending:
            raise of_ending(doc)
        return self._checked(self.completed(doc))

    def completed(self, doc: Json) -> Json:
        """Return a new object with what its namespace adds, whether it is admitted or not."""
        doc = admitted(doc, self.classes)
        if doc["kind"] != "Pod":
            return doc
        doc, ranges = self.tokens.added(doc), self._ranges(doc)
        return limit_range.with_defaults(doc, ranges) if ranges else doc

    def edited(self, old: Json, doc: Json) -> Json:
        """Return the new form of a recorded object, with what the object got when it was admitted."""
        doc = admitted(doc, self.classes)
        if doc["kind"] != "Pod":
            return doc
        return self.tokens.kept(old, limit_range.kept(old, doc, self._ranges(doc)))

    def check_edit(self, old: Json, doc: Json) -> None:
        """Check an edited object. A pod whose resources stay the same is not checked again, as in Kubernetes, which
        checks pods that are resized. Raises Forbidden."""
        if doc["kind"] in _CHECKED and self._ranges(doc) and _resources(old) != _resources(doc):
            self._checked(doc)

    def _ranges(self, doc: Json) -> Sequence[Json]:
        return self.ranges.get(doc["metadata"].get("namespace", ""), ()) if self.ranges else ()

    def _checked(self, doc: Json) -> Json:
        ranges, kind = self._ranges(doc), doc["kind"]
        if not ranges or kind not in _CHECKED:
            return doc
        violations = limit_range.pod_violations if kind == "Pod" else limit_range.claim_violations
        if found := violations(doc, ranges):
            name = doc["metadata"].get("name") or doc["metadata"].get("generateName", "")
            raise Forbidden(limit_range.forbidden(_CHECKED[kind], name, found), found[0].field)
        return doc


def rules_of(
    classes: Iterable[Json],
    ranges: Iterable[Json],
    priorities: Mapping[str, int] | None = None,
    ending: Iterable[str] = (),
    tokens: TokenVolumes | None = None,
) -> Rules:
    """`classes`: the PriorityClasses of manifests; `ranges`: LimitRanges; `priorities`: the PriorityClasses of the
    node's settings; `ending`: the namespaces that are terminated; `tokens`: which pods get a token."""
    found: dict[str, list[Json]] = {}
    for one in sorted(ranges, key=lambda doc: str(doc["metadata"]["name"])):
        found.setdefault(one["metadata"].get("namespace", ""), []).append(one)
    return Rules(classes_of(classes, priorities or {}), found, frozenset(ending), tokens or TokenVolumes())


def of_ending(doc: Json) -> Forbidden:
    """Return the refusal of a new object in a namespace that is terminated (Kubernetes
    staging/src/k8s.io/apiserver/pkg/admission/plugin/namespace/lifecycle/admission.go, Admit)."""
    from kubelite.policies.resource_quota import forbidden

    namespace = doc["metadata"]["namespace"]
    said = f"unable to create new content in namespace {namespace} because it is being terminated"
    return Forbidden(forbidden(doc, said), "metadata.namespace")


def _resources(doc: Json) -> object:
    spec = doc["spec"]
    containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    return [spec.get("resources"), *((one.get("name"), one.get("resources")) for one in containers)]
