"""The COPY and ADD instructions: resolve sources, compute the cache key, copy."""

from __future__ import annotations

import os
import posixpath
import stat
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runtime.builder import keys
from runtime.builder.copy import context, fetch, git
from runtime.builder.copy.context import Found, Tree
from runtime.builder.copy.copying import CopyError, CopyOptions, Piece, Text, parse_mode, put
from runtime.builder.errors import BuildError
from runtime.builder.language import words
from runtime.builder.language.graph import PREDEFINED
from runtime.builder.language.ignore import PatternError
from runtime.builder.language.instructions import Copy, Instruction
from runtime.builder.language.lexer import Heredoc, heredoc_word
from runtime.builder.overlay import mounted_overlay
from runtime.images.store.listing import Layer

if TYPE_CHECKING:
    from runtime.builder.stage_view import StageView

_REMOTE = ("http://", "https://")


@dataclass(frozen=True, slots=True)
class _Source:
    """One object to copy and its digest for the key. `archive`: unpack it."""

    piece: Piece | Text
    digest: str
    archive: bool = False

    @property
    def name(self) -> str:
        return self.piece.name if isinstance(self.piece, Text) else self.piece.found.name


class CopyStep:
    def __init__(self, stage: StageView, step: Instruction, what: Copy) -> None:
        self.stage, self.build, self.step, self.what = stage, stage.build, step, what
        self._excluded = context.excluding(())
        self._origin: tuple[Layer, ...] = ()  # layers that contain the sources

    def do(self) -> None:
        what = self.what

        def expand(text: str) -> str:
            return self.stage.expand(text, self.step)

        target = self.stage.resolve(expand(what.target))
        chown, chmod = expand(what.chown), expand(what.chmod)
        try:
            self._excluded = context.excluding([expand(pattern) for pattern in what.excludes])
            mode = parse_mode(chmod) if chmod else None
        except PatternError as error:
            raise BuildError(f"--exclude: {error}", self.step.place) from error
        with ExitStack() as held:
            tree = self._tree(held)
            sources = self._sources(
                tree,
                [expand(word) if not _is_doc(word, self._escape) else word for word in what.sources],
                held,
            )
            inputs = keys.copy_inputs(
                [
                    (f"{s.piece.below}/{s.name}" if isinstance(s.piece, Piece) else s.name, s.digest)
                    for s in sources
                ],
                target,
                owner=chown,
                mode=chmod,
                flags=[str(s.archive) for s in sources],
                epoch=self.build.request.epoch,
            )

            def fill(upper: str, work: str, directory: str) -> None:
                owner = self.stage.accounts().owner(chown) if chown else None
                options = CopyOptions(owner, mode, self._excluded, self.build.check)
                self._fill(sources, target, options, (upper, work, directory))

            def changed() -> str:
                used_files = tree.used_files
                paths = [
                    s.piece.found.path for s in sources if isinstance(s.piece, Piece) and s.piece.tree is tree
                ]
                return (
                    next(filter(None, map(used_files.changed, paths)), "") if used_files is not None else ""
                )

            words_ = " ".join([self.step.raw.name, *self._flags(), *what.sources, what.target])
            history = " ".join(
                [self.step.raw.name, *self._flags(), *(s.name or "." for s in sources), target]
            )
            self.stage.layer(
                "copy", inputs, words_, history if not what.sources else words_, fill, changed=changed
            )

    @property
    def _escape(self) -> str:
        return self.build.plan.escape

    def _flags(self) -> list[str]:
        return [f"--{name}={value}" if value else f"--{name}" for name, value in self.step.raw.flags]

    # --- sources ---

    def _tree(self, held: ExitStack) -> Tree:
        origin = self.stage.expand(self.what.origin, self.step)
        if not origin:
            return self.build.context
        index = self.build.plan.find(origin, before=self.stage.stage.index)
        if index >= 0:
            layers = self.build.stage_result(index).layers
        elif origin.isdigit():
            raise BuildError(f"--from: there is no stage {origin} before this one", self.step.place)
        else:
            layers = self.build.layers_of(self.build.image(self.build.store.expand(origin)))
        self._origin = layers
        root = held.enter_context(self.build.snapshot(layers))
        return Tree(root, owned=True, shown=origin)

    def _sources(self, tree: Tree, given: list[str], held: ExitStack) -> list[_Source]:
        documents = iter(self.what.heredocs)
        found: list[_Source] = []
        for word in given:
            if _is_doc(word, self._escape):
                found.append(self._document(next(documents)))
            elif self.what.add and git.is_git(word):
                found.append(self._repository(word, held))
            elif self.what.add and word.startswith(_REMOTE):
                found.append(self._remote(word, held))
            else:
                found += self._local(tree, word)
        return found

    def _document(self, document: Heredoc) -> _Source:
        content = document.content
        if document.expand:
            content = words.expand(content, self.stage.state.variables, self._escape, quotes=False)
        data = os.fsencode(content)
        return _Source(Text(document.name, data), keys.step_key("text", "", {"text": content}))

    def _remote(self, url: str, held: ExitStack) -> _Source:
        self.build.used_files.whole = False  # only its server knows whether it has changed
        directory = self.build.session.temporary("remote")
        os.mkdir(directory, 0o700)
        name = fetch.file_name(url)
        with self.build.slots:
            host = self.build.request.network == "host"
            fetch.download(url, f"{directory}/{name}", self.what.checksum, self.build.check, host=host)
        fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        held.callback(os.close, fd)
        tree = Tree(fd, shown=url)
        (found,) = context.find(tree, name)
        archive = self.what.unpack is True and _is_archive(fd, found.path)
        digest = context.digest(tree, found, self._excluded, self.build.check)
        return _Source(Piece(tree, found), digest, archive)

    def _repository(self, word: str, held: ExitStack) -> _Source:
        """The files of a commit. The commit's id represents them in the key."""
        self.build.used_files.whole = False  # only its server knows whether a branch has moved
        source = git.parse(word)
        directory = self.build.session.temporary("git")
        given = self.build.request.args
        proxies = {name: given[name] for name in sorted(PREDEFINED) if name in given}
        with self.build.slots:
            commit = git.check_out(
                source,
                directory,
                keep=self.what.keep_git,
                checksum=self.what.checksum,
                check=self.build.check,
                proxies=proxies,
                host=self.build.request.network == "host",
            )
        fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        held.callback(os.close, fd)
        tree = Tree(fd, shown=word)
        there = context.find(tree, source.directory or "/")
        if len(there) != 1:
            raise CopyError(f'"{source.directory}" is not in {source.url} at {commit}')
        about = {"commit": commit, "directory": source.directory, "kept": self.what.keep_git}
        about["excluded"] = list(self.what.excludes)
        return _Source(Piece(tree, there[0]), keys.step_key("git", "", about))

    def _local(self, tree: Tree, word: str) -> list[_Source]:
        pivot, _, rest = word.lstrip("/").partition("/./") if self.what.parents else ("", "", "")
        all_found = [
            f for f in context.find(tree, word, deep=self.what.parents) if not self._excluded.matches(f.path)
        ]
        if not all_found:
            raise BuildError(f'"{word}" is not in {tree.shown}{_hint(tree, word)}', self.step.place)
        return [self._one(tree, found, pivot if rest else "") for found in all_found]

    def _one(self, tree: Tree, found: Found, pivot: str) -> _Source:
        below = ""
        if self.what.parents:
            base = found.path if stat.S_ISDIR(found.stat.st_mode) else posixpath.dirname(found.path)
            below = posixpath.relpath(base or ".", posixpath.normpath(pivot)) if pivot else base
            below = "" if below == "." else below
        archive = (
            self.what.add
            and self.what.unpack is not False
            and stat.S_ISREG(found.stat.st_mode)
            and _is_archive(tree.root, found.path)
        )
        digest = context.digest(tree, found, self._excluded, self.build.check)
        return _Source(Piece(tree, found, below), digest, archive)

    # --- copying ---

    def _fill(
        self, sources: list[_Source], target: str, options: CopyOptions, where: tuple[str, str, str]
    ) -> None:
        self.build.hold(self._origin)
        upper, work, directory = where
        lower = self.build.directories(self.stage.layers) or [self.build.empty]
        with ExitStack() as held:
            pieces: list[Piece | Text] = []
            for number, source in enumerate(sources):
                piece = source.piece
                if source.archive and isinstance(piece, Piece):
                    piece = self._unpacked(piece, f"{directory}/archive-{number}", held)
                pieces.append(piece)
            root = held.enter_context(
                mounted_overlay(lower, upper=upper, work=work, scratch=self.build.empty)
            )
            if len(pieces) > 1 and not target.endswith("/"):
                raise CopyError(f"{target} must end with a slash, because several sources are copied to it")
            put(root, pieces, target, options)

    def _unpacked(self, piece: Piece, into: str, held: ExitStack) -> Piece:
        from runtime.builder.copy.unpacking import unpack

        os.mkdir(into, 0o755)
        whole = unpack(piece.tree.root, piece.found.path, into)
        fd = os.open(into, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        held.callback(os.close, fd)
        tree = Tree(fd, owned=True, shown=piece.found.name)
        (found,) = context.find(tree, "/")
        return Piece(tree, found, whole=whole)


def _is_archive(root: int, path: str) -> bool:
    from runtime.builder.copy.unpacking import is_archive  # imports the layers' unpacker: only for ADD

    return is_archive(root, path)


def _is_doc(word: str, escape: str) -> bool:
    return word.startswith("<<") and heredoc_word(word, escape) is not None


def _hint(tree: Tree, word: str) -> str:
    if tree.ignored.matches(posixpath.normpath("/" + word).lstrip("/")):
        return ": .dockerignore excludes it"
    return ""
