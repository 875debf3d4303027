"""The part of a stage that its steps (COPY, RUN) use. `stage.StageRun` implements it."""

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
        """The image's config at this step."""

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers at this step, lowest first."""

    def expand(self, text: str, step: Instruction) -> str:
        """The text with the stage's variables replaced."""

    def resolve(self, path: str) -> str:
        """A target as an absolute path. A slash at its end is preserved."""

    def environment(self) -> dict[str, str]:
        """The environment of a RUN."""

    def accounts(self) -> Accounts:
        """The users and groups of the stage's files."""

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
        """Add the result of a step that creates files: from the cache, or by running `fill`."""
