"""A pull from beginning to end: reference → registry → manifest → blobs → an image in the store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack

from runtime.errors import ImageError
from runtime.images import manifests, reference
from runtime.images.access import ANONYMOUS, NOBODY, Access
from runtime.images.content import Image, Layer, Session
from runtime.images.install import PARALLEL, Installer, Report
from runtime.images.manifests import Descriptor, Platform
from runtime.images.reference import Reference
from runtime.images.registry import Registry, Resolved
from runtime.images.store import ImageRecord, ImageStore
from runtime.images.streams import Spool
from runtime.images.transport import Refused


async def pull(
    store: ImageStore,
    text: str,
    *,
    report: Report,
    platform: Platform | None = None,
    parallel: int = PARALLEL,
    access: Access = ANONYMOUS,
) -> ImageRecord:
    """Bring the image `text` names up to date with its registry. Layers that are here are not fetched.
    Raises ImageError: InvalidImageName, RegistryUnavailable (trying later can help) or ErrImagePull."""
    wanted = reference.parse(text)
    platform = platform or manifests.this_platform()
    try:
        async with AsyncExitStack() as stack:
            registry, resolved = await _open(stack, wanted, platform, access, report)
            config = await registry.fetch_config(resolved.manifest.config)
            image = manifests.build_image(
                resolved.manifest,
                config,
                original=resolved.raw,
                names=[str(wanted)],
                source=f"{wanted.name}@{resolved.source_digest}",
            )
            _check_platform(image, platform, report)

            async def fetch(layer: Layer, spool: Spool, progress: Callable[[int], None]) -> None:
                await registry.fetch_blob(
                    Descriptor(layer.digest, layer.size, layer.media_type), spool, progress
                )

            with Session(store) as session, Installer(session, report, parallel=parallel) as installer:
                report(_resolved(str(wanted), resolved.source_digest, image, session))
                await installer.install(image, fetch)
    except ImageError as error:
        raise ImageError(
            f"cannot pull {wanted}: {error}", reason=error.reason, retriable=error.retriable
        ) from error
    return installed(store, str(wanted))


async def _open(
    stack: AsyncExitStack, wanted: Reference, platform: Platform, access: Access, report: Report
) -> tuple[Registry, Resolved]:
    """The first of the mirrors, and the registry itself, that has the image, with the first login it takes. It stays
    open until the stack's end."""
    failures: list[ImageError] = []
    endpoints = access.endpoints(wanted)
    for endpoint in endpoints:
        refused: list[ImageError] = []
        for login in await access.logins(endpoint, report) or NOBODY:
            async with AsyncExitStack() as attempt:
                registry = await attempt.enter_async_context(Registry(endpoint, report=report, login=login))
                try:
                    resolved = await registry.resolve(wanted.wanted, platform)
                except Refused as error:
                    refused.append(error)
                    continue
                except ImageError as error:
                    refused.append(error)
                    break
                stack.push_async_exit(attempt.pop_all())
                return registry, resolved
        failures += refused
        if endpoint is not endpoints[-1]:
            report({"event": "warning", "message": f"mirror {endpoint.registry}: {_together(refused)}"})
    raise _together(failures)


def _together(failures: Sequence[ImageError]) -> ImageError:
    """What every way said; one sentence when they said the same."""
    said = list(dict.fromkeys(map(str, failures)))
    last = failures[-1]
    return ImageError("; ".join(said), reason=last.reason, retriable=last.retriable)


def installed(store: ImageStore, text: str) -> ImageRecord:
    """The record of what was just installed."""
    record = store.get(text)
    if record is None:
        raise ImageError(f"{text} vanished right after it was installed", retriable=True)
    return record


def _resolved(name: str, digest: str, image: Image, session: Session) -> dict[str, object]:
    layers = [
        {"digest": x.digest, "size": x.size, "present": session.has_blob(x.digest, x.size)}
        for x in image.layers
    ]
    size = sum(layer.size for layer in image.layers)
    return {"event": "resolved", "reference": name, "digest": digest, "layers": layers, "size": size}


def _check_platform(image: Image, platform: Platform, report: Report) -> None:
    """A single manifest offers no choice; its config says what it is for. Emulators exist: a warning, not an error."""
    found = image.platform.get("architecture", "")
    if image.platform.get("os", platform.os) != platform.os:
        raise ImageError(f"it is for {image.platform['os']}, not {platform.os}")
    if found and found != platform.architecture:
        report(
            {
                "event": "warning",
                "message": f"the image is for {found}, this machine is {platform.architecture}",
            }
        )
