"""The node's DNS zone, kept up to date Service by Service: a change of one Service computes the names of that one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from kubelite.kube.json import Json
from kubelite.services.dns_records import Names, service_names
from kubelite.services.families import IPV4, IPV6
from runtime.dns.zone import Entry, Zone

SERVICE_NAME = "kubernetes.io/service-name"  # the label of an EndpointSlice that names its Service

Key = tuple[str, str]  # namespace and name of a Service


class ZoneBuilder:
    """Give it every Service and EndpointSlice, and each change of one. `networks`: those of pods and Services;
    `custom`: names that settings add; `families`: of the addresses of Services (see service_names)."""

    def __init__(
        self,
        domain: str,
        networks: tuple[str, ...],
        custom: Mapping[str, Entry],
        families: Collection[str] = (IPV4, IPV6),
    ) -> None:
        self._domain = domain
        self._families = families
        self._networks = networks
        self._custom = custom
        self._services: dict[Key, Json] = {}
        self._slices: dict[Key, dict[str, Json]] = {}
        self._names: dict[Key, Names] = {}
        self._outdated: set[Key] = set()
        self._serial = 0

    def set_service(self, doc: Json) -> None:
        """A Service that exists, as it is now."""
        key = _key(doc, doc["metadata"]["name"])
        self._services[key] = doc
        self._outdated.add(key)

    def remove_service(self, doc: Json) -> None:
        key = _key(doc, doc["metadata"]["name"])
        self._services.pop(key, None)
        self._outdated.add(key)

    def set_slice(self, doc: Json) -> None:
        """An EndpointSlice as it is now. One that changes its Service leaves the former one."""
        self.remove_slice(doc)
        if service := (doc["metadata"].get("labels") or {}).get(SERVICE_NAME):
            key = _key(doc, service)
            self._slices.setdefault(key, {})[doc["metadata"]["name"]] = doc
            self._outdated.add(key)

    def remove_slice(self, doc: Json) -> None:
        namespace, name = _key(doc, doc["metadata"]["name"])
        labelled = (doc["metadata"].get("labels") or {}).get(SERVICE_NAME)
        keys: Iterable[Key] = [(namespace, labelled)] if labelled else ()
        if not any(name in self._slices.get(key, ()) for key in keys):
            keys = [key for key in self._slices if key[0] == namespace and name in self._slices[key]]
        for key in keys:
            self._slices[key].pop(name, None)
            if not self._slices[key]:
                del self._slices[key]
            self._outdated.add(key)

    def zone(self, upstreams: tuple[str, ...], stubs: Mapping[str, tuple[str, ...]]) -> Zone:
        """The zone of everything given so far, with a serial higher than the last one's."""
        for key in self._outdated:
            service = self._services.get(key)
            if service is None:
                self._names.pop(key, None)
            else:
                slices = list(self._slices.get(key, {}).values())
                self._names[key] = service_names(service, slices, self._domain, self._families)
        self._outdated.clear()
        self._serial += 1
        names: dict[str, Entry] = dict(self._custom)
        pointers: dict[str, str] = {}
        for found in self._names.values():
            names.update(found.names)
            pointers.update(found.pointers)
        return Zone(self._domain, names, pointers, self._networks, upstreams, stubs, serial=self._serial)


def _key(doc: Json, name: str) -> Key:
    return doc["metadata"].get("namespace") or "default", name
