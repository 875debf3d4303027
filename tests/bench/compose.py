"""docker compose as a peer: a service with many containers, beside a Deployment with as many pods."""

from __future__ import annotations

from pathlib import Path

from tests.bench.caged import Refused
from tests.bench.peers import CannotDo, Docker, Span
from tests.e2e.node import IMAGE

#: All containers of a service have the same command, so they write their times into one file.
_SERVICE = """services:
  web:
    image: {image}
    pull_policy: never
    restart: always
    stop_grace_period: 5s
    command: [/stamp, "{name}"]
    environment: {{EDITION: "{edition}"}}
    volumes: [/data, "{stamps}:/bench"]
"""


class Compose(Docker):
    """`docker-compose up --scale` against a dockerd of its own. A changed service is not rolled out: all containers are
    recreated, as many at once as compose likes."""

    name = "docker compose"
    program = "docker-compose"

    def start(self, names: list[str]) -> int:
        raise CannotDo  # it is the same as docker

    def pull(self, reference: str, place: str) -> Span:
        raise CannotDo

    def build(self) -> Span:
        raise CannotDo

    def deploy(self, name: str, count: int, *, edition: int = 1) -> float:
        """Start the service, or change it. Return seconds from the command to the first instruction of the last
        container."""
        started = len(self.stamps_of(name))
        self._file(name).write_text(
            _SERVICE.format(image=IMAGE, name=name, edition=edition, stamps=self.stamps)
        )
        began = self._compose(name, "up", "--detach", "--scale", f"web={count}").began
        found = self.wait_stamps([name], started + count)
        return (max(*found, *self.stamps_of(name)) - began) / 1e9

    def undeploy(self, name: str) -> None:
        self._compose(name, "down", "--volumes")

    def _file(self, name: str) -> Path:
        return self.base / f"{name}.yaml"

    def _compose(self, name: str, *words: str) -> Span:
        where = ["env", "DOCKER_HOST=unix:///run/dockerd.sock", f"HOME={self.base}"]
        command = ["docker-compose", "--project-name", name, "--file", str(self._file(name)), *words]
        try:
            done = self.cage.run([*where, *command])
        except Refused as error:
            raise Refused(f"docker-compose {words[0]}: {error}") from error
        return Span(done.began, done.ended)
