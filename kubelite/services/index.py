"""Which pods are behind which Service. A change of one pod touches the Services that select it, and no others.

Services are listed under one label of their selector, pods under each of theirs. So neither side looks through the
other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TypeVar

from kubelite.kube.json import Json
from kubelite.kube.label_selectors import labels_of
from kubelite.kube.objects import belongs_to_cluster
from kubelite.services.backends import Backend, backend, selects
from kubelite.services.slices import SERVICE_NAME

Name = tuple[str, str]  # namespace and name
_Label = tuple[str, str, str]  # namespace, key and value
K = TypeVar("K")
V = TypeVar("V")


class ServiceIndex:
    """`put_…` and `drop_…` keep it up to date, and return the names of the Services for which something has changed."""

    def __init__(self) -> None:
        self._services: dict[Name, Json] = {}
        self._by_label: dict[_Label, set[Name]] = {}  # each Service once, under a label of its selector
        self._pods: dict[str, Json] = {}
        self._pods_by_label: dict[_Label, set[str]] = {}
        self._backends: dict[Name, dict[str, Backend]] = {}
        self._of_pod: dict[str, set[Name]] = {}
        self._slices: dict[Name, dict[str, Json]] = {}  # by the Service that they name, and their own name
        self._endpoints: dict[Name, Json] = {}

    def services(self) -> dict[Name, Json]:
        return self._services

    def service(self, name: Name) -> Json | None:
        return self._services.get(name)

    def backends(self, name: Name) -> Collection[Backend]:
        return self._backends.get(name, {}).values()

    def slices(self, name: Name) -> Sequence[Json]:
        return tuple(self._slices.get(name, {}).values())

    def endpoints(self, name: Name) -> Json | None:
        return self._endpoints.get(name)

    def behind(self, uid: str) -> Mapping[Name, Backend]:
        """Return the Services that have a pod among their backends, with the pod as a backend of each."""
        return {name: self._backends[name][uid] for name in self._of_pod.get(uid, ())}

    def selected(self, name: Name) -> Iterator[Json]:
        """Yield the pods that a Service selects, those without an address, too."""
        service = self._services.get(name)
        for uid in self._candidates(service) if service is not None else ():
            if selects(self._services[name], self._pods[uid]):
                yield self._pods[uid]

    # -- Services ---------------------------------------------------------------------------------------------------

    def put_service(self, doc: Json) -> set[Name]:
        name = _name(doc)
        old = self._services.get(name)
        self._services[name] = doc
        if old is None or old["spec"] != doc["spec"]:
            self._unlist(name, old)
            if (label := _label(doc)) is not None:
                self._by_label.setdefault(label, set()).add(name)
            for uid in self._candidates(doc):
                self._join(name, uid)
        return {name}

    def drop_service(self, doc: Json) -> set[Name]:
        name = _name(doc)
        self._unlist(name, self._services.pop(name, None))
        return {name}

    def _unlist(self, name: Name, old: Json | None) -> None:
        if old is not None and (label := _label(old)) is not None:
            _discard(self._by_label, label, name)
        for uid in self._backends.pop(name, {}):
            _discard(self._of_pod, uid, name)

    def _candidates(self, service: Json) -> list[str]:
        label = _label(service)
        return sorted(self._pods_by_label.get(label, ())) if label is not None else []

    # -- pods -------------------------------------------------------------------------------------------------------

    def put_pod(self, doc: Json) -> set[Name]:
        if belongs_to_cluster(doc):
            return set()
        uid, namespace = doc["metadata"]["uid"], doc["metadata"]["namespace"]
        old = self._pods.get(uid)
        if old is not None and labels_of(old) != labels_of(doc):
            self._unlist_pod(uid, old)
            old = None
        self._pods[uid] = doc
        if old is None:
            for label in _labels(doc):
                self._pods_by_label.setdefault(label, set()).add(uid)
        names = set(self._of_pod.get(uid, ()))
        for key, value in labels_of(doc).items():
            names |= self._by_label.get((namespace, key, value), set())
        return {name for name in names if self._join(name, uid)}

    def drop_pod(self, doc: Json) -> set[Name]:
        uid = doc["metadata"]["uid"]
        if (old := self._pods.pop(uid, None)) is not None:
            self._unlist_pod(uid, old)
        names = self._of_pod.pop(uid, set())
        for name in names:
            self._backends.get(name, {}).pop(uid, None)
        return names

    def _unlist_pod(self, uid: str, old: Json) -> None:
        for label in _labels(old):
            _discard(self._pods_by_label, label, uid)

    def _join(self, name: Name, uid: str) -> bool:
        """Make the pod a backend of the Service, or no backend any more. Return whether that is a change."""
        service, pod = self._services[name], self._pods[uid]
        found = backend(service, pod) if selects(service, pod) else None
        had = self._backends.get(name, {}).get(uid)
        if found == had:
            return False
        if found is None:
            self._backends[name].pop(uid, None)
            _discard(self._of_pod, uid, name)
        else:
            self._backends.setdefault(name, {})[uid] = found
            self._of_pod.setdefault(uid, set()).add(name)
        return True

    # -- EndpointSlices and Endpoints ---------------------------------------------------------------------------------

    def put_slice(self, doc: Json) -> set[Name]:
        name = _service_of(doc)
        if name is None:
            return set()
        self._slices.setdefault(name, {})[doc["metadata"]["name"]] = doc
        return {name}

    def drop_slice(self, doc: Json) -> set[Name]:
        name = _service_of(doc)
        if name is None:
            return set()
        self._slices.get(name, {}).pop(doc["metadata"]["name"], None)
        return {name}

    def put_endpoints(self, doc: Json) -> set[Name]:
        self._endpoints[_name(doc)] = doc
        return {_name(doc)}

    def drop_endpoints(self, doc: Json) -> set[Name]:
        self._endpoints.pop(_name(doc), None)
        return {_name(doc)}


def _name(doc: Json) -> Name:
    return doc["metadata"]["namespace"], doc["metadata"]["name"]


def _service_of(found: Json) -> Name | None:
    name = labels_of(found).get(SERVICE_NAME)
    return (found["metadata"]["namespace"], str(name)) if name else None


def _label(service: Json) -> _Label | None:
    """Return the label under which a Service is listed; None if it selects nothing."""
    selector = (service.get("spec") or {}).get("selector")
    if not selector:
        return None
    key = min(selector)
    return service["metadata"]["namespace"], key, selector[key]


def _labels(pod: Json) -> Iterator[_Label]:
    for key, value in labels_of(pod).items():
        yield pod["metadata"]["namespace"], key, value


def _discard(listed: dict[K, set[V]], key: K, value: V) -> None:
    if key in listed:
        listed[key].discard(value)
        if not listed[key]:
            del listed[key]
