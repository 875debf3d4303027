"""Pure: the stages of a Containerfile as a graph: which of them the target needs, and which depend on which.

Arguments before the first FROM form the global scope. FROM lines can use them, and so can a stage that names them in an
ARG without a default (docs.docker.com/reference/dockerfile, "Understand how ARG and FROM interact").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from runtime.builder.errors import BuildError, Place
from runtime.builder.language import instructions, words
from runtime.builder.language.instructions import Copy, From, Instruction, Pairs, Run
from runtime.builder.language.lexer import Containerfile

SCRATCH = "scratch"
# Predefined arguments: need no ARG, are in RUN's environment, and are part of no cache key ("Predefined ARGs").
PREDEFINED = frozenset(
    name
    for lower in ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")
    for name in (lower, lower.upper())
)


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage. `base` is an image's name or SCRATCH, or another stage if `base_stage` ≥ 0."""

    index: int
    name: str
    base: str
    place: Place
    steps: tuple[Instruction, ...]
    base_stage: int = -1
    platform: str = ""

    @property
    def shown(self) -> str:
        return self.name or f"stage-{self.index}"


@dataclass(frozen=True, slots=True)
class Graph:
    stages: tuple[Stage, ...]
    target: int
    needed: frozenset[int]  # the target and every stage it depends on
    global_args: Mapping[str, str]  # with the values of the command line
    escape: str = "\\"

    def find(self, text: str, *, before: int) -> int:
        """The index of the earlier stage that a --from names; -1 if it names an image."""
        return _find(self.stages, text, before)


def plan(
    parsed: Containerfile, *, target: str, args: Mapping[str, str], platform_args: Mapping[str, str]
) -> Graph:
    """Build the graph. `args` are those of --build-arg, `platform_args` TARGETPLATFORM and so on. Raises BuildError."""
    steps = [instructions.read(raw, parsed.escape) for raw in parsed.instructions]
    globals_, begin = _global_args(steps, parsed.escape, args, platform_args)
    stages: list[Stage] = []
    while begin < len(steps):
        end = begin + 1
        while end < len(steps) and not isinstance(steps[end].what, From):
            end += 1
        stages.append(_stage(steps[begin:end], stages, {**platform_args, **globals_}, parsed.escape))
        begin = end
    wanted = _target(stages, target)
    return Graph(tuple(stages), wanted, _needed(stages, wanted), globals_, parsed.escape)


def _global_args(
    steps: list[Instruction], escape: str, args: Mapping[str, str], platform_args: Mapping[str, str]
) -> tuple[dict[str, str], int]:
    found: dict[str, str] = {}
    for number, step in enumerate(steps):
        if isinstance(step.what, From):
            return found, number
        if not isinstance(step.what, Pairs) or step.what.kind != "ARG":
            raise BuildError(f"{step.raw.name} is not allowed before the first FROM; only ARG is", step.place)
        for name, default in step.what.pairs:
            if name in args:
                found[name] = args[name]
            elif default is not None:
                found[name] = expanded(default, {**platform_args, **found}, escape, step)
            elif name in platform_args:
                found[name] = platform_args[name]
    raise BuildError("there is no FROM instruction", steps[-1].place)


def expanded(text: str, env: Mapping[str, str], escape: str, step: Instruction) -> str:
    """Like `words.expand`, but raises BuildError with the place."""
    try:
        return words.expand(text, env, escape)
    except words.WordError as error:
        raise BuildError(f"{step.raw.name}: {error}", step.place) from error


def _stage(steps: list[Instruction], before: list[Stage], env: Mapping[str, str], escape: str) -> Stage:
    first = steps[0]
    assert isinstance(first.what, From)
    base = expanded(first.what.image, env, escape, first)
    platform = expanded(first.what.platform, env, escape, first)
    if not base:
        raise BuildError(
            f'the base name "{first.what.image}" is empty: is a build argument missing?', first.place
        )
    name = first.what.name
    if name == SCRATCH:
        raise BuildError('a stage cannot have the name "scratch"', first.place)
    if name and any(stage.name == name for stage in before):
        raise BuildError(f"another stage has the name {name} already", first.place)
    number = next((s.index for s in before if s.name and s.name == base.lower()), -1)
    return Stage(len(before), name, base, first.place, tuple(steps[1:]), number, platform)


def _find(stages: tuple[Stage, ...] | list[Stage], text: str, before: int) -> int:
    for stage in stages[:before]:
        if stage.name and stage.name == text.lower():
            return stage.index
    if text.isdigit() and int(text) < before:
        return int(text)
    return -1


def _target(stages: list[Stage], target: str) -> int:
    if not target:
        return len(stages) - 1
    found = _find(stages, target, len(stages))
    if found < 0:
        names = ", ".join(stage.name for stage in stages if stage.name)
        raise BuildError(f'there is no stage "{target}"{f"; the stages are {names}" if names else ""}')
    return found


def sources_of(step: Instruction) -> tuple[str, ...]:
    """The stages or images from which a step reads files, as written."""
    if isinstance(step.what, Copy):
        return (step.what.origin,) if step.what.origin else ()
    if isinstance(step.what, Run):
        return tuple(m.values["from"] for m in step.what.mounts if m.values.get("from"))
    return ()


def _needed(stages: list[Stage], target: int) -> frozenset[int]:
    needed: set[int] = set()
    todo = [target]
    while todo:
        index = todo.pop()
        if index in needed:
            continue
        needed.add(index)
        stage = stages[index]
        if stage.base_stage >= 0:
            todo.append(stage.base_stage)
        for step in stage.steps:
            for text in sources_of(step):
                if text.isdigit() and int(text) >= index:
                    raise BuildError(f"stage {text} does not come before this one", step.place)
                if (found := _find(stages, text, index)) >= 0:
                    todo.append(found)
    return frozenset(needed)
