"""Pull an image: reference → registry → manifest → blobs → an image in the store."""

from __future__ import annotations

from collections.abc import Sequence

from runtime.errors import ImageError
from runtime.images import manifests, reference
from runtime.images.install import PARALLEL, Installer, Report
from runtime.images.manifests import Platform
from runtime.images.reference import Reference
from runtime.images.registry import signatures
from runtime.images.registry.access import ANONYMOUS, Access
from runtime.images.registry.auth import login_hash
from runtime.images.registry.policy import Requirement
from runtime.images.registry.repository import Resolved
from runtime.images.registry.sources import Sources
from runtime.images.store.content import Session
from runtime.images.store.listing import Image
from runtime.images.store.store import ImageRecord, ImageStore


async def pull(
    store: ImageStore,
    text: str,
    *,
    report: Report,
    platform: Platform | None = None,
    parallel: int = PARALLEL,
    access: Access = ANONYMOUS,
) -> ImageRecord:
    """Update the image that `text` names from its registry. Layers that are present are not fetched. Raises ImageError:
    InvalidImageName, RegistryUnavailable (retriable) or ErrImagePull."""
    wanted = reference.parse(text)
    platform = platform or manifests.this_platform()
    try:
        required = access.policy.admit(wanted) if access.policy is not None else ()
        async with Sources(wanted, access, report) as sources:
            resolved = await sources.resolve(platform)
            if (login := sources.login) is not None:
                report({"event": "login", "source": login.source, "hash": login_hash(login)})
            if required:
                await _check_signatures(sources, resolved, required, wanted)
            config = await sources.fetch_config(resolved.manifest.config)
            image = manifests.build_image(
                resolved.manifest,
                config,
                original=resolved.raw,
                names=[str(wanted)],
                source=f"{wanted.name}@{resolved.source_digest}",
            )
            _check_platform(image, platform, report)

            with Session(store) as session, Installer(session, report, parallel=parallel) as installer:
                report(_resolved(str(wanted), resolved.source_digest, image, session))
                await installer.install(image, sources.fetch_blob, more=sources.more)
    except ImageError as error:
        raise ImageError(
            f"cannot pull {wanted}: {error}", reason=error.reason, retriable=error.retriable
        ) from error
    return installed(store, str(wanted))


async def _check_signatures(
    sources: Sources, resolved: Resolved, required: Sequence[Requirement], wanted: Reference
) -> None:
    """Raise ImageError unless the manifest, or the index that led to it, has the required signatures."""
    digests = list(dict.fromkeys((resolved.digest, resolved.source_digest)))
    found = [one for digest in digests for one in await sources.signatures(digest)]
    signatures.check(found, required, wanted, digests)


def installed(store: ImageStore, text: str) -> ImageRecord:
    """The record of an image that was just installed. Raises ImageError (retriable) if it has been removed."""
    record = store.get(text)
    if record is None:
        raise ImageError(f"{text} was removed right after it was installed", retriable=True)
    return record


def _resolved(name: str, digest: str, image: Image, session: Session) -> dict[str, object]:
    layers = [
        {"digest": x.digest, "size": x.size, "present": session.has_blob(x.digest, x.size)}
        for x in image.layers
    ]
    size = sum(layer.size for layer in image.layers)
    return {"event": "resolved", "reference": name, "digest": digest, "layers": layers, "size": size}


def _check_platform(image: Image, platform: Platform, report: Report) -> None:
    """Check the config's platform: a single manifest offers no choice. Another architecture is a warning, not an error,
    because an emulator may run it."""
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
