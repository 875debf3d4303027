"""The RUN instruction: resolve command and mounts, compute the cache key, run."""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from runtime.builder import keys
from runtime.builder.config import DEFAULT_SHELL
from runtime.builder.copy import context
from runtime.builder.copy.context import Tree
from runtime.builder.copy.copying import CopyOptions, Piece, put
from runtime.builder.language.graph import PREDEFINED, expanded
from runtime.builder.language.ignore import Ignore
from runtime.builder.language.instructions import Instruction, Mount, Run
from runtime.builder.language.lexer import heredoc_word
from runtime.builder.run import agents, cachemount
from runtime.images.store import buildcache
from runtime.images.store.listing import Layer

if TYPE_CHECKING:
    from runtime.builder.run.running import Overlay, Secret
    from runtime.builder.stage_view import StageView

Json = dict[str, Any]
_TRUE = ("true", "1", "")


class RunStep:
    """One RUN instruction. Reading its mounts collects binds, overlays and secrets."""

    def __init__(self, stage: StageView, step: Instruction, what: Run) -> None:
        self.stage, self.build, self.step, self.what = stage, stage.build, step, what
        self._env = stage.environment()
        self._binds: list[Json] = []
        self._overlays: list[Overlay] = []
        self._secrets: list[Secret] = []
        self._deferred: list[tuple[str, Mount, Any]] = []  # mounts to prepare when the step runs
        self._agents = 0  # number of ssh mounts
        self._context_paths: list[str] = []  # mounted paths of the context

    def do(self) -> None:
        script, args = self._command()
        network = self.what.network if self.what.network != "default" else self.build.request.network
        described = [self._describe(mount) for mount in self.what.mounts]
        inputs = keys.run_inputs(
            [*args, *([script] if script else [])],
            self._env,
            user=self.stage.state.user,
            workdir=self.stage.state.workdir,
            network=network,
            mounts=described,
            hidden=PREDEFINED - set(self.stage.state.args) - set(self.stage.state.env),
            epoch=self.build.request.epoch,
        )
        number = self.build.number()

        def fill(upper: str, work: str, directory: str) -> None:
            self._run(args, script, network, number, (upper, work, directory))

        shown, history = self._shown(), self._history(args)
        self.stage.layer("run", inputs, shown, history, fill, number=number, changed=self._changed)

    def _changed(self) -> str:
        """The first mounted file of the context that changed after its digest was taken; "" if none did."""
        return next(filter(None, map(self.build.used_files.changed, self._context_paths)), "")

    def _shown(self) -> str:
        return f"RUN {' '.join(self.what.command.args)}".strip()

    def _history(self, args: list[str]) -> str:
        given = self.stage.state.args
        arguments = f"|{len(given)} {' '.join(f'{k}={v}' for k, v in given.items())} " if given else ""
        return f"RUN {arguments}{' '.join(args)}"

    def _command(self) -> tuple[str, list[str]]:
        """Return (script, arguments). A here-document that is the whole command is the shell's text, or a script if it
        starts with #!."""
        command, documents = self.what.command, self.what.heredocs
        shell = list(self.stage.state.config.get("Shell") or DEFAULT_SHELL)
        if not command.shell or not documents:
            return "", [*shell, *command.args] if command.shell else list(command.args)
        text = command.args[0]
        alone = heredoc_word(text, self.build.plan.escape)
        if alone is None:
            bodies = "".join(f"\n{doc.content}{doc.name}" for doc in documents)
            return "", [*shell, text + bodies]
        content = documents[0].content
        if content.startswith("#!"):
            return content, [f"/dev/pipes/{documents[0].name}"]
        return "", [*shell, content]

    # --- mounts: their part of the key ---

    def _describe(self, mount: Mount) -> Json:
        escape = self.build.plan.escape
        values = {
            key: expanded(value, self.stage.state.variables, escape, self.step)
            for key, value in mount.values.items()
        }
        target = posixpath.join(self.stage.state.workdir, values.get("target", ""))
        resolved = Mount(mount.kind, values)
        about: Json = {"type": mount.kind, "target": target}
        if mount.kind == "bind":
            tree, layers, digest = self._bind_source(values)
            self._deferred.append((target, resolved, (tree, layers)))
            return {**about, "digest": digest, "rw": self._writable(values)}
        if mount.kind == "cache":
            if not values.get("from"):
                self._deferred.append((target, resolved, ((), "")))
                return {**about, "id": values.get("id") or target}
            layers, seed = self._origin(values["from"], values.get("source", "") or "/")
            self._deferred.append((target, resolved, (layers, seed)))
            return {**about, "id": values.get("id") or target, "from": seed}
        if mount.kind == "tmpfs":
            options = ["nosuid", "nodev", *([f"size={values['size']}"] if values.get("size") else [])]
            self._binds.append(
                {"destination": target, "type": "tmpfs", "source": "tmpfs", "options": options}
            )
            return about
        if mount.kind == "ssh":
            return self._ssh(values)
        return self._secret(values)

    @staticmethod
    def _writable(values: Mapping[str, str]) -> bool:
        return values.get("rw", "false") in _TRUE or values.get("ro", "true") not in _TRUE

    def _bind_source(self, values: Mapping[str, str]) -> tuple[Tree | None, tuple[Layer, ...], str]:
        source = values.get("source", "") or "/"
        origin = values.get("from", "")
        if not origin:
            found = context.find(self.build.context, source)
            if len(found) != 1:
                raise ValueError(f'--mount: "{source}" is not in the build context')
            self._context_paths.append(found[0].path)
            digest = context.digest(self.build.context, found[0], Ignore(), self.build.check)
            return self.build.context, (), f"{digest} {found[0].path}"
        layers, digest = self._origin(origin, source)
        return None, layers, digest

    def _origin(self, origin: str, source: str) -> tuple[tuple[Layer, ...], str]:
        """(layers of a stage or an image, the part of the key for `source` in it)."""
        index = self.build.plan.find(origin, before=self.stage.stage.index)
        here = index >= 0
        layers = (
            self.build.stage_result(index).layers if here else self.build.layers_of(self.build.image(origin))
        )
        with self.build.snapshot(layers) as root:
            tree = Tree(root, owned=True, shown=origin)
            if not context.find(tree, source):
                raise ValueError(f'--mount: "{source}" is not in {origin}')
        return layers, f"{layers[-1].chain_id if layers else ''} {source}"

    def _secret(self, values: Mapping[str, str]) -> Json:
        target, variable = values.get("target", ""), values.get("env", "")
        identity = values.get("id") or posixpath.basename(values.get("source") or target)
        if not identity:
            raise ValueError("--mount=type=secret needs an id")
        about: Json = {"type": "secret", "id": identity, "target": target, "env": variable}
        content = self.build.request.secrets.get(identity)
        if content is None:
            if values.get("required", "false") in _TRUE:
                raise ValueError(
                    f"the secret {identity} is required; pass it with --secret id={identity},src=FILE"
                )
            return about
        if variable:
            self._deferred.append(("", Mount("env", {"name": variable}), content))
        if target or not variable:
            from runtime.builder.run.running import Secret

            uid, gid = (_number(values.get(key, "0"), key) for key in ("uid", "gid"))
            mode = _octal(values.get("mode", "0400"))
            self._deferred.append(
                (target or f"/run/secrets/{identity}", Mount("secret", {}), Secret(content, uid, gid, mode))
            )
        return about

    def _ssh(self, values: Mapping[str, str]) -> Json:
        identity = values.get("id") or "default"
        target = values.get("target") or f"/run/buildkit/ssh_agent.{self._agents}"  # as in docker
        self._agents += 1
        agent = self.build.request.agents.get(identity)
        if agent is not None:
            self._deferred.append((target, Mount("ssh", dict(values)), agent))
        elif values.get("required", "false") in _TRUE:
            raise ValueError(f"the agent {identity} is required; pass it with --ssh {identity}")
        return {"type": "ssh", "id": identity, "target": target}

    # --- running ---

    def _run(
        self, args: list[str], script: str, network: str, number: int, where: tuple[str, str, str]
    ) -> None:
        from runtime.builder.run import running  # imports the engine: only when the step runs

        upper, work, directory = where
        event = {"event": "log", "id": number}
        report = self.build.services.report

        def output(data: bytes) -> None:
            report({**event, "text": data.decode("utf-8", "replace")})

        with ExitStack() as held:
            env = dict(self._env)
            self._prepare(directory, env, held)
            if script:
                path = f"{directory}/script"
                with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
                    file.write(script)
                os.chmod(path, 0o755)
                self._bind(args[0], path, writable=False)
            secrets = f"{directory}/secrets"
            os.mkdir(secrets, 0o700)
            job = running.RunJob(
                args=args,
                env=env,
                cwd=self.stage.state.workdir,
                user=self.stage.accounts().user(self.stage.state.user),
                lower=self.build.directories(self.stage.layers) or [self.build.empty],
                upper=upper,
                work=work,
                directory=directory,
                cgroup=self.build.cgroup(number),
                network=network,
                binds=tuple(self._binds),
                overlays=tuple(self._overlays),
                secrets=tuple(self._secrets),
                secrets_at=secrets,
                resources={**self.build.services.resources, **self.build.request.resources},
                socketcall=self.build.services.socketcall,
                apparmor=self.build.services.apparmor,
            )
            running.run(job, self.build.services.attach, output, self.build.cancellable)

    def _bind(self, target: str, source: str, *, writable: bool, beneath: str = "") -> None:
        options = ["rbind", "rprivate", "rw" if writable else "ro"]
        if beneath:
            options.append(f"x-beneath={beneath}")
        self._binds.append({"destination": target, "type": "bind", "source": source, "options": options})

    def _prepare(self, directory: str, env: dict[str, str], held: ExitStack) -> None:
        for count, (target, mount, about) in enumerate(self._deferred):
            if mount.kind == "env":
                env[mount.values["name"]] = about.decode("utf-8", "surrogateescape").rstrip("\n")
            elif mount.kind == "secret":
                self._bind(target, f"{directory}/secrets/{len(self._secrets)}", writable=False)
                self._secrets.append(about)
            elif mount.kind == "ssh":
                self._agent(target, mount.values, about, f"{directory}/agent-{count}", held)
                env.setdefault("SSH_AUTH_SOCK", target)
            elif mount.kind == "cache":
                self._cache(target, mount.values, about, held)
            else:
                self._bind_mount(target, mount.values, about, f"{directory}/bind-{count}")

    def _agent(self, target: str, values: Mapping[str, str], agent: str, at: str, held: ExitStack) -> None:
        uid, gid = (_number(values.get(key, "0"), key) for key in ("uid", "gid"))
        mode = _octal(values.get("mode", "0600"))
        held.enter_context(agents.forwarded(at, agent, uid=uid, gid=gid, mode=mode))
        self._bind(target, at, writable=True)

    def _bind_mount(
        self, target: str, values: Mapping[str, str], about: tuple[Tree | None, tuple[Layer, ...]], at: str
    ) -> None:
        from runtime.builder.run.running import Overlay

        tree, layers = about
        self.build.hold(layers)
        writable = self._writable(values)
        for path in (at, f"{at}-upper", f"{at}-work", f"{at}-empty"):
            os.mkdir(path, 0o755)
        source = (values.get("source") or "/").lstrip("/")
        lower = self.build.directories(layers) or [self.build.empty]
        if (
            tree is not None
        ):  # copy the context: ignored files stay hidden, and nothing writes to the originals
            copied = f"{at}-context"
            os.mkdir(copied, 0o755)
            self._copy_context(tree, source, copied)
            lower = [copied]
        upper, work = (f"{at}-upper", f"{at}-work") if writable else ("", "")
        self._overlays.append(Overlay(lower, at, f"{at}-empty", upper, work))
        if tree is not None:
            source = "it"
        self._bind(target, posixpath.join(at, source) if source else at, writable=writable, beneath=at)

    def _copy_context(self, tree: Tree, source: str, into: str) -> None:
        (found,) = context.find(tree, source)
        fd = os.open(into, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            put(fd, [Piece(tree, found)], "/it", CopyOptions(check=self.build.check))
        finally:
            os.close(fd)

    def _cache(
        self, target: str, values: Mapping[str, str], origin: tuple[tuple[Layer, ...], str], held: ExitStack
    ) -> None:
        sharing = values.get("sharing", "shared")
        if sharing not in ("shared", "private", "locked"):
            raise ValueError(f"--mount: sharing must be shared, private or locked, not {sharing}")
        uid, gid = (_number(values.get(key, "0"), key) for key in ("uid", "gid"))
        identity = values.get("id") or target
        layers, seed = origin
        fill: Callable[[str], None] | None = None
        if seed:  # the seed is part of the cache's identity, as in buildkit
            identity = f"{identity}\0{seed}"

            def fill(path: str) -> None:
                self._seed(layers, values.get("source", "") or "/", path)

        top = buildcache.mounts_directory(self.build.store)
        os.makedirs(top, 0o700, exist_ok=True)
        initial = cachemount.InitialState(uid, gid, _octal(values.get("mode", "0755")), fill)
        path = held.enter_context(cachemount.lock_cache(top, identity, sharing, initial, self.build.check))
        writable = values.get("ro", "false") not in _TRUE and values.get("rw", "true") in _TRUE
        self._bind(target, path, writable=writable)

    def _seed(self, layers: tuple[Layer, ...], source: str, path: str) -> None:
        """Copy a directory of a stage or image to a new cache, by rename. If the process is killed before, the copy is
        in the session's directory."""
        self.build.hold(layers)
        made = self.build.session.temporary("seed")
        os.mkdir(made, 0o700)
        with self.build.snapshot(layers) as root:
            tree = Tree(root, owned=True)
            (found,) = context.find(tree, source)
            if not stat.S_ISDIR(found.stat.st_mode):
                raise ValueError(f'--mount=type=cache: "{source}" is not a directory')
            fd = os.open(made, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                put(fd, [Piece(tree, found, whole=True)], "/it", CopyOptions(check=self.build.check))
            finally:
                os.close(fd)
        try:
            os.rename(f"{made}/it", path)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):  # another RUN has created the cache
                raise


def _number(text: str, key: str) -> int:
    if not text.isdigit():
        raise ValueError(f"--mount: {key} must be a number, not {text}")
    return int(text)


def _octal(text: str) -> int:
    try:
        return int(text, 8)
    except ValueError:
        raise ValueError(f"--mount: mode must be octal, not {text}") from None
