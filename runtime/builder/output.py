"""The output of a build: an image in the store, its files as a directory or tar, or an archive of the image."""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

from runtime.builder import keys
from runtime.builder.copy import context
from runtime.builder.copy.context import Tree
from runtime.builder.copy.copying import CopyOptions, Piece, put
from runtime.builder.errors import BuildError
from runtime.builder.solver import Build, Result
from runtime.images import manifests
from runtime.images.store import buildcache
from runtime.images.store.buildcache import Step
from runtime.images.store.listing import Image
from runtime.images.store.store import ImageRecord

Json = dict[str, Any]
KINDS = {
    "image": "an image in the store (the default)",
    "local": "the files, in a directory",
    "tar": "the files, as a tar",
    "oci": "the image, as an OCI archive",
    "docker": "the image, in the format of docker save",
}
_ALIASES = {"oci-archive": "oci", "docker-archive": "docker"}


@dataclass(frozen=True, slots=True)
class Output:
    kind: str = "image"
    target: str = ""  # "-" means standard output
    special: bool = False  # a directory gets set-user-ID bits, file capabilities and devices, too


def parse(text: str) -> Output:
    """Parse --output as buildx does: a directory, `-`, or type=KIND,dest=PATH. Raises ValueError."""
    if "=" not in text:
        return Output("tar", "-") if text == "-" else Output("local", text)
    fields: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if not equals:
            raise ValueError(f'--output: "{part}" is not KEY=VALUE')
        fields[key] = value
    kind = _ALIASES.get(fields.get("type", ""), fields.get("type", ""))
    special = fields.pop("special", "false")
    unknown = sorted(set(fields) - {"type", "dest"})
    if kind not in KINDS:
        raise ValueError(f'--output: unknown type "{fields.get("type", "")}"; use one of {", ".join(KINDS)}')
    if unknown:
        hint = "; push the image with `kubelite push`" if "push" in unknown else ""
        raise ValueError(f"--output: {unknown[0]} is not supported{hint}")
    target = fields.get("dest", "")
    if kind in ("local", "tar", "oci", "docker") and not target:
        raise ValueError(f"--output: type={kind} needs dest=")
    if kind == "image" and target:
        raise ValueError("--output: type=image has no dest")
    if kind == "local" and target == "-":
        raise ValueError("--output: type=local needs a directory")
    if special not in ("true", "false") or (special == "true" and kind != "local"):
        raise ValueError("--output: special is true or false, with type=local")
    return Output(kind, target, special == "true")


def write(build: Build, result: Result, output: Output) -> ImageRecord | None:
    """Write the output. Returns the image, or None if only its files were requested. Raises BuildError, ImageError,
    OSError."""
    if output.kind == "local":
        _write_directory(build, result, output)
        return None
    if output.kind == "tar":
        from runtime.builder.diff import write_tree

        with build.snapshot(result.layers) as root, _opened(output.target) as file:
            write_tree(root, file.write, epoch=build.request.epoch)
        return None
    record = commit(build, result)
    if output.kind in ("oci", "docker"):
        from runtime.images.archive import export

        form = export.OCI if output.kind == "oci" else export.DOCKER
        target = build.session.temporary("archive") if output.target == "-" else output.target
        names = list(build.request.tags) or [record.id]
        export.save(build.store, names, target, form=form, report=build.services.report)
        if output.target == "-":
            with open(target, "rb") as file:
                shutil.copyfileobj(file, sys.stdout.buffer)
            sys.stdout.buffer.flush()
    return record


def _write_directory(build: Build, result: Result, output: Output) -> None:
    """Copy the files. Unless `output.special` is set, leave out what would give privileges or access to a device on the
    host, and warn about it."""
    omitted: dict[str, int] = {}

    def omit(what: str) -> None:
        omitted[what] = omitted.get(what, 0) + 1

    os.makedirs(output.target, exist_ok=True)
    into = os.open(output.target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with build.snapshot(result.layers) as root:
            tree = Tree(root, owned=True)
            (found,) = context.find(tree, "/")
            options = CopyOptions(check=build.check, omitted=None if output.special else omit)
            put(into, [Piece(tree, found)], "/", options)
    finally:
        os.close(into)
    for what, count in omitted.items():
        message = f"{output.target} has no {what}, which {count} files of the image have: see type=local,special=true"
        build.services.report({"event": "warning", "message": message})


@contextmanager
def _opened(target: str) -> Iterator[IO[bytes]]:
    """Open the target: standard output, an existing pipe or device, or a file that appears complete by rename."""
    if target == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    if os.path.exists(target) and not stat.S_ISREG(os.stat(target).st_mode):
        with open(target, "wb") as file:
            yield file
        return
    temporary = f"{target}.{os.getpid()}.tmp"
    try:
        with open(temporary, "xb", buffering=1 << 20) as file:
            yield file
        os.rename(temporary, target)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def commit(build: Build, result: Result) -> ImageRecord:
    """Install the image under its names. Equal files and config give the same image, whenever they are built."""
    state, layers = result.state, result.layers
    top = layers[-1].chain_id if layers else ""
    epoch = build.request.epoch
    key = keys.image_key(top, {**state.config, "author": state.author, "epoch": epoch}, state.history)
    known = build.cached(key)
    created = known.created if known is not None else build.now()
    if known is None:
        buildcache.save(build.store, key, Step(created, None, tuple(layer.chain_id for layer in layers)))
    platform = manifests.this_platform()
    about = {"architecture": platform.architecture, "os": platform.os}
    if platform.variant:
        about["variant"] = platform.variant
    document: Json = {
        "created": created,
        **({"author": state.author} if state.author else {}),
        **about,
        "config": state.config,
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        "history": [{"created": created, **entry} for entry in state.history],
    }
    data = json.dumps(document, separators=(",", ":")).encode()
    image = Image(manifests.oci_manifest(data, layers), data, layers, build.request.tags, "", about)
    build.session.lease(image)
    for layer in layers:
        if not build.session.has_blob(layer.digest, layer.size) or not build.session.has_layer(
            layer.chain_id
        ):
            raise BuildError(f"layer {layer.digest} was removed during the build; build again")
    if not _is_there(build, image):
        build.session.commit_image(image)
    record = build.store.get(build.request.tags[0]) if build.request.tags else None
    return record or build.store.find(image.config_digest)


def _is_there(build: Build, image: Image) -> bool:
    """Whether the index lists the image under all its names already, so that nothing needs to be written."""
    named = {r.reference for r in build.store.list() if r.manifest_digest == image.manifest_digest}
    return bool(named) and set(image.names) <= named
