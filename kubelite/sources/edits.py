"""`apply -f` and `delete -f`: writes documents to the manifests directory, and removes them from it.

`plan_apply` and `plan_remove` compute the new texts of files; `execute` replaces whole files by rename. If a file
already contains a document's object, the document is replaced there, and the rest of that file is unchanged, comments
included. New documents are written to a file with the name of the given one.

Files are split into documents at lines that begin with `---`. YAML forbids such a line inside any scalar (c-forbidden,
YAML 1.2.2 section 9.1.2), so this is exact without a parser.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import yaml

from kubelite.kube.errors import ApiError, bad_request
from kubelite.kube.objects import CLUSTER_SCOPED
from kubelite.sources.files import read_text
from manifests.yaml.document import SyntaxProblem, read_documents, without_marks
from manifests.yaml.object_names import GeneratedNames, may_define, objects_in, prefix_of
from runtime.files import sync_directory

FOLDER = "kubectl"  # of the manifest directory, where objects that the API creates get files of their own
_SEPARATOR = re.compile(r"^---(?=[ \t\r\n]|\Z)", re.MULTILINE)
_METADATA = re.compile(r"^metadata:[ \t]*(?:#.*)?\n(?P<indent>[ \t]+)(?=\S)", re.MULTILINE)


class Key(NamedTuple):
    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind.lower()}/{self.name}"


@dataclass(frozen=True, slots=True)
class Chunk:
    """A document in a file. `text` includes its `---` line, if there is one."""

    text: str
    keys: tuple[Key, ...]  # several for a List
    content: Any

    @property
    def body(self) -> str:
        return _SEPARATOR.sub("", self.text, count=1) if self.text.startswith("---") else self.text


class Outcome(NamedTuple):
    key: Key
    result: str  # created, configured, unchanged, deleted, missing
    file: str  # absolute path, "" if missing


@dataclass(frozen=True, slots=True)
class Plan:
    """The changes to files. `writes`: path → new text; None deletes the file."""

    writes: Mapping[str, str | None]
    outcomes: tuple[Outcome, ...]


# -- texts ------------------------------------------------------------------------------------------------------


def split(text: str, file: str = "") -> list[Chunk]:
    """Split the text of a file into documents; JSON is one document. Raises BadRequest if one is not YAML. `file`: its
    path, on which generated names depend."""
    text = without_marks(text)
    cuts = [] if file.endswith(".json") else [match.start() for match in _SEPARATOR.finditer(text)]
    edges = [0, *[c for c in cuts if c], len(text)]
    names = GeneratedNames(file)
    return [_chunk(text[a:b], names) for a, b in pairwise(edges) if a != b]


def _chunk(text: str, names: GeneratedNames | None = None) -> Chunk:
    """Read a document as the directory's reader does, so that both accept the same texts."""
    found = []
    for read in read_documents(text):
        if isinstance(read, SyntaxProblem):
            raise bad_request(f"not a YAML document: line {read.line}: {read}")
        found.append(read)
    if len(found) > 1:
        raise bad_request("not a YAML document: two documents without a line `---` between them")
    content = found[0].data if found else None
    return Chunk(text, tuple(_keys(content, names)), content)


def content_of(text: str) -> Any:
    """Return the data of one document. Raises BadRequest."""
    return _chunk(text).content


def _keys(content: Any, names: GeneratedNames | None) -> Iterator[Key]:
    for _, item in objects_in(content):
        if (key := _key(names.named(item) if names else item)) is not None:
            yield key


def _key(item: Any) -> Key | None:
    metadata = item.get("metadata") if isinstance(item, dict) else None
    if not isinstance(metadata, dict) or not metadata.get("name"):
        return None
    kind, namespace = str(item.get("kind")), str(metadata.get("namespace") or "default")
    return Key(kind, "" if kind in CLUSTER_SCOPED else namespace, str(metadata["name"]))


def in_namespace(chunk: Chunk, namespace: str) -> Chunk:
    """Return the document with this namespace, which is added if missing. Raises BadRequest if the document has another
    one."""
    if not namespace or not isinstance(chunk.content, dict) or not chunk.keys or not chunk.keys[0].namespace:
        return chunk
    named = (chunk.content.get("metadata") or {}).get("namespace")
    if named == namespace:
        return chunk
    if named:
        raise bad_request(
            f'the namespace from the provided object "{named}" does not match the namespace "{namespace}". '
            f"You must pass '--namespace={named}' to perform this operation."
        )
    return _with_metadata(chunk, "namespace", namespace)


def with_name(chunk: Chunk, name: str) -> Chunk:
    """Return the document of one object, which has only `generateName`, with a name."""
    return _with_metadata(chunk, "name", name)


def _with_metadata(chunk: Chunk, field: str, value: str) -> Chunk:
    """Return the document with a field that it lacks, if possible with the rest of its text unchanged."""
    content = {**chunk.content, "metadata": {**chunk.content["metadata"], field: value}}
    key = chunk.keys[0]._replace(**{field: value})
    text, count = _METADATA.subn(
        lambda m: f"{m.group(0)}{field}: {value}\n{m.group('indent')}", chunk.text, 1
    )
    if count and _chunk(text).content == content:
        return Chunk(text, (key,), content)
    return Chunk("---\n" + yaml.safe_dump(content, sort_keys=False), (key,), content)


def single_objects(chunks: Iterable[Chunk], file: str = "") -> list[Chunk]:
    """Return one chunk for each object that has a name, given or generated. Lists are expanded. `file`: as for
    `split`."""
    found: list[Chunk] = []
    names = GeneratedNames(file)
    for chunk in chunks:
        for path, item in objects_in(chunk.content):
            if (key := _key(names.named(item))) is None:
                continue
            text = "---\n" + yaml.safe_dump(item, sort_keys=False) if path else chunk.text
            found.append(Chunk(text, (key,), item))
    return found


# -- plans ------------------------------------------------------------------------------------------------------


def plan_apply(files: Mapping[str, str], applied: Sequence[Chunk], target: str) -> Plan:
    """Plan the writes that apply documents. `files`: path → text of the files that may contain any of the objects. New
    objects are written to `target`."""
    parsed = {path: split(text, path) for path, text in files.items()}
    outcomes: list[Outcome] = []
    changed: set[str] = set()
    new: list[Chunk] = []
    for chunk in applied:
        key = chunk.keys[0]
        place = _find(parsed, key)
        if place is None:
            new.append(chunk)
            outcomes.append(Outcome(key, "created", target))
            continue
        path, index = place
        if parsed[path][index].content == chunk.content:
            outcomes.append(Outcome(key, "unchanged", path))
            continue
        parsed[path][index] = _instead(parsed[path][index], chunk, path)
        changed.add(path)
        outcomes.append(Outcome(key, "configured", path))
    writes: dict[str, str | None] = {path: _joined(_pinned(parsed[path], path)) for path in changed}
    if new:
        before = writes.get(target) or files.get(target, "")
        writes[target] = _appended(before, new, target)
    return Plan(writes, tuple(outcomes))


def refuse_known(plan: Plan) -> None:
    """Raise AlreadyExists if an object of the plan already exists (kubectl create)."""
    for key, result, file in plan.outcomes:
        if result != "created":
            plural = key.kind.lower() + ("es" if key.kind.endswith("s") else "s")
            raise ApiError("AlreadyExists", f'{plural} "{key.name}" already exists: it is in {file}')


def plan_remove(files: Mapping[str, str], keys: Sequence[Key]) -> Plan:
    """Plan the writes that remove objects. A List goes with its last object, and a file with its last document.
    `files`: as for `plan_apply`. Raises Conflict."""
    parsed = {path: split(text, path) for path, text in files.items()}
    gone: dict[Key, str] = {}  # with the file that had it
    for key in keys:
        if key in gone or (place := _place(parsed, key)) is None:
            continue
        path, index = place
        chunk = parsed[path][index]
        together = [key] if len(chunk.keys) == 1 else [one for one in chunk.keys if one in keys]
        left = _without(chunk, together, path)
        parsed[path][index : index + 1] = [] if left is None else [left]
        gone |= dict.fromkeys(together, path)
    outcomes = [
        Outcome(key, "deleted", gone[key]) if key in gone else Outcome(key, "missing", "") for key in keys
    ]
    changed = set(gone.values())
    writes = {
        path: _joined(_pinned(parsed[path], path))
        if any(chunk.content is not None for chunk in parsed[path])
        else None
        for path in changed
    }
    return Plan(writes, tuple(outcomes))


def plan_change(files: Mapping[str, str], key: Key, change: Callable[[str], str]) -> Plan:
    """Plan the write that changes the text of one object's document. `files`: as for `plan_apply`. Raises NotFound if
    none of them has the object."""
    parsed = {path: split(text, path) for path, text in files.items()}
    place = _find(parsed, key)
    if place is None:
        raise ApiError("NotFound", f"no manifest has {key}")
    path, index = place
    old = parsed[path][index]
    new = _chunk(change(old.text))
    if new.content == old.content:
        return Plan({}, (Outcome(key, "unchanged", path),))
    parsed[path][index] = new
    texts = "".join(chunk.text for chunk in parsed[path])
    return Plan({path: texts}, (Outcome(key, "configured", path),))


def _find(parsed: Mapping[str, list[Chunk]], key: Key) -> tuple[str, int] | None:
    """Return the file and the place of an object's own document. Raises Conflict if it is in a List with others."""
    place = _place(parsed, key)
    if place is not None and len(parsed[place[0]][place[1]].keys) > 1:
        raise _in_a_list(key, place[0])
    return place


def _place(parsed: Mapping[str, list[Chunk]], key: Key) -> tuple[str, int] | None:
    places = ((path, index) for path, chunks in parsed.items() for index in range(len(chunks)))
    return next(((path, index) for path, index in places if key in parsed[path][index].keys), None)


def _without(chunk: Chunk, keys: Collection[Key], path: str) -> Chunk | None:
    """Return a document without these objects, None if it has no others. Raises Conflict if a List must be written anew
    and would lose something: a comment, or names that depend on the place of an object."""
    left = tuple(key for key in chunk.keys if key not in keys)
    if not left:
        return None
    items = [item for _, item in objects_in(chunk.content) if _key(item) not in keys]
    content = {**chunk.content, "items": items}
    if chunk.body.lstrip().startswith("{"):
        commented, text = False, json.dumps(content, indent=2) + "\n"
    else:
        commented, text = "#" in chunk.body, yaml.safe_dump(content, sort_keys=False)
    new = _chunk(("---\n" if chunk.text.startswith("---") else "") + text)
    if commented or (new.keys, new.content) != (left, content):
        raise _in_a_list(next(iter(keys)), path)
    return new


def _in_a_list(key: Key, path: str) -> ApiError:
    return ApiError("Conflict", f"{path} has {key} inside a List; edit that file by hand")


def _instead(old: Chunk, new: Chunk, path: str) -> Chunk:
    if path.endswith(".json"):
        return Chunk(json.dumps(new.content, indent=2) + "\n", new.keys, new.content)
    # In "--- {kind: Pod}", the text after the dashes belongs to the document that is replaced.
    head = "---" if old.text.startswith("---") else ""
    body = new.body
    if not head and body.startswith((" ", "\n", "\r\n")):
        body = body.lstrip()
    if head and not body.startswith(("\n", "\r\n", " ", "\t")):
        body = "\n" + body
    return Chunk(_ended(head + body), new.keys, new.content)


def _pinned(chunks: Sequence[Chunk], path: str) -> Iterator[Chunk]:
    """Yield the documents of a changed file. One whose generated name would be another one now, because a document
    before it is gone, gets its name written down."""
    names = GeneratedNames(path)
    for chunk in chunks:
        moved = tuple(_keys(chunk.content, names)) != chunk.keys and prefix_of(chunk.content)
        yield with_name(chunk, chunk.keys[0].name) if moved else chunk


def _joined(chunks: Iterable[Chunk]) -> str:
    out = ""
    for chunk in chunks:
        if out and not chunk.text.startswith("---"):
            out += "---\n"
        out += _ended(chunk.text)
    return out


def _appended(before: str, new: Sequence[Chunk], target: str) -> str:
    if target.endswith(".json"):
        return _ended(new[0].text)
    return _joined([Chunk(before, (), None), *new]) if before.strip() else _joined(new)


def _ended(text: str) -> str:
    return text if text.endswith("\n") or not text else text + "\n"


# -- the directory ----------------------------------------------------------------------------------------------


def target_path(directory: str, file: str, applied: Sequence[Chunk], *, taken: Iterable[str]) -> str:
    """Return the path for new documents: the given file's name, changed if `Sources` would not read it."""
    base = os.path.basename(file).lstrip(".")
    stem, suffix = os.path.splitext(base)
    kind, namespace, name = applied[0].keys[0]
    where = "" if namespace in ("", "default") else f"{namespace}-"
    if file in ("", "-") or not stem:
        return os.path.join(directory, f"{where}{kind.lower()}-{name}.yaml")
    if suffix == ".json" and len(applied) == 1 and not applied[0].text.startswith("---"):
        path = os.path.join(directory, base)
        return path if path not in taken else os.path.join(directory, f"{where}{kind.lower()}-{name}.json")
    return os.path.join(directory, base if suffix in (".yaml", ".yml") else f"{stem}.yaml")


def read_candidates(paths: Iterable[str], keys: Iterable[Key], *, also: str = "") -> dict[str, str]:
    """Read the files that contain the name of one of these objects, and the file `also`. Return path → text. Unreadable
    files are omitted."""
    names = {key.name for key in keys}
    found: dict[str, str] = {}
    for path in sorted({*paths, *([also] if also else [])}):
        try:
            text = read_text(path)
        except (OSError, UnicodeDecodeError):
            continue
        if path == also or any(may_define(text, name) for name in names):
            found[path] = text
    return found


def execute(plan: Plan, manifests: str) -> None:
    """Write the files. Each is replaced by rename, so a reader sees either the old or the new file as a whole. The
    files are on the disk when this returns, so an acknowledged change survives a power failure. In the folder of
    objects that the API creates, directories are removed with their last file. `manifests`: the manifest directory.
    Raises ApiError."""
    for path in filter(os.path.islink, plan.writes):
        words = f"{path} is a symbolic link to {os.readlink(path)}: change the file that it leads to"
        raise ApiError("Conflict", words)
    changed: dict[str, None] = {}  # directories to sync, in order
    for path, text in plan.writes.items():
        try:
            for directory in _make_directories(os.path.dirname(path)):
                changed[directory] = None
            if text is None:
                os.unlink(path)
            else:
                _replace(
                    path, text, private=any(o.key.kind == "Secret" and o.file == path for o in plan.outcomes)
                )
            changed[os.path.dirname(path)] = None
        except OSError as error:
            raise ApiError("InternalError", f"cannot write {path}: {error.strerror}") from error
    for directory in changed:
        try:
            sync_directory(directory)
        except OSError as error:
            raise ApiError("InternalError", f"cannot sync {directory}: {error.strerror}") from error
    for path in (path for path, text in plan.writes.items() if text is None):
        _remove_empty(os.path.dirname(path), os.path.join(manifests, FOLDER))


def undo(plan: Plan, before: Mapping[str, str], manifests: str) -> None:
    """Give the files of an executed plan their old content, `before`. A file that somebody has written since stays.
    Raises ApiError."""
    ours = [path for path, text in plan.writes.items() if _holds(path, text)]
    execute(Plan({path: before.get(path) for path in ours}, plan.outcomes), manifests)


def _holds(path: str, text: str | None) -> bool:
    try:
        return read_text(path) == text
    except FileNotFoundError:
        return text is None
    except (OSError, UnicodeDecodeError):
        return False


def _make_directories(path: str) -> list[str]:
    """Create missing directories. Return the directories that have a new entry."""
    missing = []
    while not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    for directory in reversed(missing):
        os.mkdir(directory)
    return [os.path.dirname(directory) for directory in reversed(missing)]


def _remove_empty(directory: str, top: str) -> None:
    """Remove a directory and those above it, up to `top`, as far as they are empty. Others are left alone."""
    with contextlib.suppress(OSError):  # ENOTEMPTY; or somebody else has removed it
        while directory == top or directory.startswith(f"{top}/"):
            os.rmdir(directory)
            directory = os.path.dirname(directory)


def _replace(path: str, text: str, *, private: bool) -> None:
    directory, name = os.path.split(path)
    before = None
    with contextlib.suppress(FileNotFoundError):
        before = os.stat(path)
    # The temporary file is a dotfile, which `Sources` never reads.
    temporary = os.path.join(directory, f".{name}.{os.getpid()}.tmp")
    with contextlib.ExitStack() as undo:
        _forget(temporary)  # of a daemon that was killed
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        fd = os.open(temporary, flags, 0o600 if private or before is not None else 0o644)
        undo.callback(_forget, temporary)
        if before is not None:  # its owner can still edit it, and whoever could read it still can
            os.fchown(fd, before.st_uid, before.st_gid)
            os.fchmod(fd, before.st_mode & 0o777)
        with open(fd, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(fd)
        os.replace(temporary, path)
        undo.pop_all()


def _forget(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
