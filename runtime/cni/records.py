"""What is attached, as one file for each pod: the network's configuration, what its plugins were given, their result.

A file is written before the first plugin runs, and removed when all have answered DEL. So whatever a killed daemon or a
power failure leaves of an attachment, its record says how to remove it, even after the configuration has changed
(the specification, section 4: a runtime must give DEL and CHECK the cached result of ADD).
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from runtime.cni.conflist import Network, from_json
from runtime.cni.requests import Pod
from runtime.errors import NetworkError, SpecError
from runtime.files import sync_directory

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Record:
    """One pod's attachment. `result` None: ADD has not finished. `netns_id`: st_dev:st_ino of the namespace, which
    tells it from a later one behind the same path. `version`: what all the plugins were asked in."""

    pod: Pod
    network: Network
    version: str
    netns_id: str
    result: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "pod": asdict(self.pod),
            "network": self.network.to_json(),
            "version": self.version,
            "netnsId": self.netns_id,
            "result": self.result,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Record:
        """Raises KeyError, TypeError or SpecError for what is no record."""
        return cls(
            Pod(**data["pod"]),
            from_json(data["network"]),
            data["version"],
            data["netnsId"],
            data["result"],
        )


class Records:
    """The records of a node, in a directory of its own."""

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def all(self) -> dict[str, Record]:
        """Every readable record, by uid."""
        found = {}
        for uid in self.uids():
            try:
                record = self.get(uid)
            except NetworkError as error:
                log.error("%s", error)
                continue
            if record is not None:
                found[uid] = record
        return found

    def uids(self) -> list[str]:
        """The uids of all records, readable or not."""
        if not os.path.isdir(self._directory):
            return []
        names = sorted(os.listdir(self._directory))
        return [name.removesuffix(".json") for name in names if name.endswith(".json")]

    def get(self, uid: str) -> Record | None:
        """Return the record of a pod; None if it has none, or one that is damaged. Raises NetworkError if it cannot be
        read now: the pod may be attached."""
        try:
            with open(self._path(uid), encoding="utf-8") as file:
                return Record.from_json(json.load(file))
        except FileNotFoundError:
            return None
        except OSError as error:
            words = f"the record of the pod's network cannot be read: {self._path(uid)}: {error.strerror}"
            raise NetworkError(words) from error
        except (ValueError, KeyError, TypeError, AttributeError, SpecError) as error:
            log.error("the record of a pod's CNI network cannot be read: %s: %s", self._path(uid), error)
            return None

    def put(self, record: Record) -> None:
        """Write a record to the disk: plugins keep addresses beyond a power failure, too. Raises NetworkError."""
        path = self._path(record.pod.uid)
        try:
            os.makedirs(self._directory, mode=0o700, exist_ok=True)
            with open(f"{path}.tmp", "w", encoding="utf-8") as file:
                json.dump(record.to_json(), file)
                file.flush()
                os.fsync(file.fileno())
            os.rename(f"{path}.tmp", path)
            sync_directory(self._directory)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(f"{path}.tmp")
            raise NetworkError(
                f"the record of the pod's network cannot be written: {path}: {error.strerror}"
            ) from error

    def remove(self, uid: str) -> None:
        """Raises NetworkError."""
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path(uid))
        except OSError as error:
            raise NetworkError(f"{self._path(uid)} cannot be removed: {error.strerror}") from error

    def _path(self, uid: str) -> str:
        if "/" in uid or uid.startswith("."):
            raise NetworkError(f"{uid!r} is not the uid of a pod")
        return f"{self._directory}/{uid}.json"
