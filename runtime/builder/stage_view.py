"""What the steps of a stage (COPY, RUN) see of it. `stage.StageRun` satisfies this."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from runtime.builder.config import State
from runtime.builder.copy.accounts import Accounts
from runtime.builder.language.graph import Stage
from runtime.builder.language.instructions import Instruction
from runtime.builder.solver import Build
from runtime.images.store.listing import Layer


class StageView(Protocol):
    @property
    def build(self) -> Build: ...

    @property
    def stage(self) -> Stage: ...

    @property
    def state(self) -> State:
        """The image's config so far."""

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers so far, lowest first."""

    def expand(self, text: str, step: Instruction) -> str:
        """The text with the stage's variables replaced."""

    def resolve(self, path: str) -> str:
        """A target as an absolute path; a slash at its end stays."""

    def environment(self) -> dict[str, str]:
        """The environment of a RUN."""

    def accounts(self) -> Accounts:
        """The names of users and groups in the stage's files."""

    def layer(
        self,
        kind: str,
        inputs: Mapping[str, object],
        shown: str,
        history: str,
        fill: Callable[[str, str, str], None],
        *,
        number: int = 0,
        changed: Callable[[], str] = str,
    ) -> None:
        """Add the result of a step that makes files: from the cache, or made now by `fill`."""
