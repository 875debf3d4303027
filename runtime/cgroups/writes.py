"""A limit as data, and the one place that turns such data into writes to the kernel.

The planners (`resources_v1`, `resources_v2`) are pure: OCI `linux.resources` in, a list of `Write` out.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from typing import NamedTuple

from runtime.cgroups import files
from runtime.errors import CapabilityError, SyscallError

_LACKING = (errno.ENOENT, errno.EOPNOTSUPP, errno.ENODEV)


class Write(NamedTuple):
    """One value for one file of one controller.

    `required`: a kernel without the file fails the whole apply (CapabilityError) instead of giving a warning.
    `optional`: it says nothing either.
    """

    controller: str
    file: str
    value: str
    required: bool = False
    optional: bool = False


class Plan(NamedTuple):
    writes: list[Write]
    warnings: list[str]


def execute(plan: Plan, directory: Callable[[str], str | None]) -> list[str]:
    """Do the writes in order; gives the warnings. `directory` says where a controller's files are (None: nowhere).

    Limits that check each other (memory and memory+swap, period and quota, quota and burst) are refused with EINVAL
    in one order when they grow and in the other when they shrink: a refused write is tried again after the rest.
    """
    warnings = list(plan.warnings)
    refused = _pass(plan.writes, directory, warnings, last=False)
    _pass(refused, directory, warnings, last=True)
    return warnings


def _pass(
    writes: Iterable[Write], directory: Callable[[str], str | None], warnings: list[str], *, last: bool
) -> list[Write]:
    refused = []
    for write in writes:
        place = directory(write.controller)
        if place is None and write.optional:
            continue
        if place is None:
            warnings.append(_lacks(write, f"the {write.controller} controller is not available here"))
            continue
        try:
            files.write(f"{place}/{write.file}", write.value)
        except SyscallError as error:
            if error.errno == errno.EINVAL and not last:
                refused.append(write)
            elif error.errno in _LACKING and write.optional:
                continue
            elif error.errno in _LACKING:
                warnings.append(_lacks(write, f"this kernel has no {write.file} in {place}"))
            elif error.errno == errno.EBUSY and write.controller == "memory":
                raise _too_full(write, place) from error
            else:
                raise
    return refused


def _lacks(write: Write, why: str) -> str:
    sentence = f"{write.file} = {write.value} was not applied: {why}"
    if write.required:
        raise CapabilityError(sentence)
    return sentence


def _too_full(write: Write, place: str) -> SyscallError:
    """v1 refuses a memory limit that reclaim cannot reach; say by how much it misses, as runc does."""
    usage = files.read_or(f"{place}/memory.usage_in_bytes", "?").strip()
    return SyscallError(
        errno.EBUSY, "write", f"{write.value} to {place}/{write.file} (in use: {usage} bytes)"
    )
