"""Loads the default AppArmor profile when the node starts, on a kernel that has AppArmor."""

from __future__ import annotations

import asyncio
import logging

from kubelite.kube.events import EventRecorder
from kubelite.node.spec import lsm
from runtime.errors import CapabilityError
from runtime.security import apparmor

log = logging.getLogger(__name__)


async def load_default_profile(events: EventRecorder) -> None:
    """Return when the kernel has this version of the profile. If it cannot be loaded, containers run without it, which
    an event of the node says; those whose manifests name it do not start."""
    try:
        await asyncio.to_thread(apparmor.load, lsm.DEFAULT_PROFILE)
    except CapabilityError as error:
        words = f"containers run without the default AppArmor profile: {error}"
        events.node_event("NoAppArmorProfile", words)
        return
    log.info("AppArmor profile %s is loaded", lsm.DEFAULT_PROFILE)
