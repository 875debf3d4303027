"""Run one stage of a build, step by step."""

from __future__ import annotations

import os
import posixpath
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from runtime.builder import config, keys
from runtime.builder.config import State
from runtime.builder.copy import accounts
from runtime.builder.copy.copying import CopyError, Owner, make_directories
from runtime.builder.copy.copystep import CopyStep
from runtime.builder.errors import BuildError, Cancelled
from runtime.builder.language import instructions, lexer
from runtime.builder.language.graph import PREDEFINED, SCRATCH, Stage, expanded
from runtime.builder.language.instructions import Copy, Instruction, Pairs, Run, Text
from runtime.builder.overlay import mounted_overlay
from runtime.builder.run.runstep import RunStep
from runtime.builder.solver import Build, Result, platform_args
from runtime.errors import ImageError, RuntimeFault
from runtime.images.layers.lower import LowerView
from runtime.images.reference import parse as parse_reference
from runtime.images.store.buildcache import Step
from runtime.images.store.listing import Layer


class StageRun:
    """One stage. `run` returns its result."""

    def __init__(self, build: Build, stage: Stage) -> None:
        self.build, self.stage = build, stage
        self.state = State()
        self.layers: tuple[Layer, ...] = ()
        self._done = 0
        self._steps: tuple[Instruction, ...] = stage.steps

    # --- the stage ---

    def run(self) -> Result:
        triggers = self._begin()
        self._steps = (*(self._trigger(text) for text in triggers), *self.stage.steps)
        if self.stage.index == self.build.plan.target and self.build.request.labels:
            labels = {**(self.state.config.get("Labels") or {}), **self.build.request.labels}
            self.state = self.state.with_config(Labels=labels)
        for step in self._steps:
            self.build.check()
            try:
                self._step(step)
            except BuildError as error:
                if error.place is not None or isinstance(error, Cancelled):
                    raise
                raise BuildError(error.message, step.place) from error
            except RuntimeFault as error:
                raise BuildError(f"{step.raw.name}: {error}", step.place) from error
            except ValueError as error:
                raise BuildError(f"{step.raw.name}: {error}", step.place) from error
            except OSError as error:
                about = f" ({error.filename})" if error.filename else ""
                raise BuildError(f"{step.raw.name}: {error.strerror}{about}", step.place) from error
        return Result(self.state, self.layers)

    def _begin(self) -> tuple[str, ...]:
        """Start from the base of FROM. Returns its ONBUILD triggers."""
        stage = self.stage
        if stage.base_stage >= 0:
            base = self.build.stage_result(stage.base_stage)
            triggers = tuple(base.state.config.get("OnBuild") or ())
            fresh = replace(base.state, args={}, cmd_set=False)
            self.state, self.layers = fresh.with_config(OnBuild=None), base.layers
            return triggers
        self._check_platform()
        if stage.base == SCRATCH:
            self.state = config.scratch()
            return ()
        with self.reported(f"FROM {stage.base}") as tell:
            try:
                record = self.build.image(str(parse_reference(self.build.store.expand(stage.base))))
            except ImageError as error:
                raise BuildError(f"FROM {stage.base}: {error}", stage.place) from error
            except BuildError as error:
                raise BuildError(error.message, stage.place) from error
            tell("done")
        document = self.build.store.image_config(record)
        self.layers = self.build.layers_of(record)
        self.state, triggers = config.from_image(document)
        return triggers

    def _check_platform(self) -> None:
        here = platform_args()["TARGETPLATFORM"]
        if self.stage.platform not in ("", here):
            raise BuildError(
                f"--platform={self.stage.platform} is not supported: this machine builds only for {here}",
                self.stage.place,
            )

    def _trigger(self, text: str) -> Instruction:
        raw = lexer.instruction(text, self.stage.place, self.build.plan.escape)
        return instructions.read(raw, self.build.plan.escape)

    # --- one step ---

    def _step(self, step: Instruction) -> None:
        what = step.what
        if isinstance(what, Run):
            RunStep(self, step, what).do()
        elif isinstance(what, Copy):
            CopyStep(self, step, what).do()
        elif isinstance(what, Pairs) and what.kind == "ARG":
            self._arg(step, what)
        else:
            self.state = config.change(self.state, step, lambda text: self.expand(text, step))
            if isinstance(what, Text) and what.kind == "WORKDIR":
                self._workdir()

    def expand(self, text: str, step: Instruction) -> str:
        return expanded(text, self.state.variables, self.build.plan.escape, step)

    def _arg(self, step: Instruction, what: Pairs) -> None:
        """Set build arguments: from the command line, else from the default, else (without a default) from the global
        scope."""
        given, globals_ = self.build.request.args, self.build.plan.global_args
        args = dict(self.state.args)
        for name, default in what.pairs:
            if name in given:
                args[name] = given[name]
            elif default is not None:
                args[name] = expanded(default, {**args, **self.state.env}, self.build.plan.escape, step)
            elif name in globals_:
                args[name] = globals_[name]
            elif name in platform_args():
                args[name] = platform_args()[name]
            elif name == "SOURCE_DATE_EPOCH" and self.build.request.epoch is not None:
                args[name] = str(self.build.request.epoch)
        self.state = replace(self.state, args=args)
        words = " ".join(name if value is None else f"{name}={value}" for name, value in what.pairs)
        self.state = self.state.with_history(f"ARG {words}")

    def _workdir(self) -> None:
        """Create the working directory if it is missing, in a layer of its own. USER owns it, as in buildkit."""
        path = self.state.workdir
        found = LowerView(self.build.directories(self.layers)).resolve(os.fsencode(path.strip("/")))
        words = f"WORKDIR {path}"
        if path == "/" or (found is not None and stat.S_ISDIR(found.stat.st_mode)):
            self.state = self.state.with_history(words)
            return
        if found is not None:
            raise CopyError(f"{path} is not a directory")

        def fill(upper: str, work: str, _directory: str) -> None:
            lower = self.build.directories(self.layers) or [self.build.empty]
            with mounted_overlay(lower, upper=upper, work=work, scratch=self.build.empty) as root:
                user = accounts.read(root).user(self.state.user)
                os.close(make_directories(root, path, Owner(user.uid, user.gid)))

        inputs = {"path": path, "user": self.state.user, "epoch": self.build.request.epoch}
        self.layer("workdir", inputs, words, words, fill)

    def environment(self) -> dict[str, str]:
        """The environment of RUN: proxies from the command line, overridden by build arguments, overridden by the
        image's variables."""
        given = self.build.request.args
        proxies = {name: given[name] for name in sorted(PREDEFINED) if name in given}
        return {**proxies, **self.state.args, **self.state.env}

    def accounts(self) -> accounts.Accounts:
        with self.build.snapshot(self.layers) as root:
            return accounts.read(root)

    # --- layers ---

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
        """Add the result of a step that creates files: from the cache, or by running it (`Build.make`)."""
        key = keys.step_key(kind, self.layers[-1].chain_id if self.layers else "", inputs)
        with self.reported(shown, number) as tell, self.build.once(key):
            step: Step | None = self.build.cached(key)
            if step is not None:
                tell("cached")
            else:
                with self.build.slots:
                    step = self.build.make(key, self.layers, fill, changed)
                tell("done")
        if step.layer is not None:
            self.layers = (*self.layers, step.layer)
        self.state = self.state.with_history(history, created=step.created, empty=step.layer is None)

    @contextmanager
    def reported(self, shown: str, number: int = 0) -> Iterator[Callable[[str], None]]:
        """Report the start, the end and a failure of a step as events."""
        self._done += 1
        total = 1 + sum(1 for s in self._steps if isinstance(s.what, Run | Copy))
        total += sum(1 for s in self._steps if isinstance(s.what, Text) and s.what.kind == "WORKDIR")
        name = f"[{self.stage.shown} {self._done}/{max(total, self._done)}] {shown}"
        event = {"event": "step", "id": number or self.build.number()}
        began = time.monotonic()
        report = self.build.services.report
        report({**event, "state": "begin", "name": name})

        def tell(state: str) -> None:
            report({**event, "state": state, "seconds": time.monotonic() - began})

        try:
            yield tell
        except Cancelled:
            tell("cancelled")
            raise
        except BaseException as error:
            report({**event, "state": "error", "message": str(error), "seconds": time.monotonic() - began})
            raise

    def resolve(self, path: str) -> str:
        """A target as an absolute path. A slash at its end is preserved."""
        whole = posixpath.normpath(posixpath.join(self.state.workdir, path)).replace("//", "/")
        directory = path.endswith(("/", "/.")) or path in (".", "")
        return whole if whole == "/" or not directory else f"{whole}/"


def run_stage(build: Build, stage: Stage) -> Result:
    """Run the steps of one stage; returns the stage's result."""
    return StageRun(build, stage).run()
