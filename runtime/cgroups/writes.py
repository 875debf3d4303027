"""Limits as data, and the function that writes them to the kernel.

The planners (`resources_v1`, `resources_v2`) are pure: they translate OCI `linux.resources` to a list of `Write`.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from typing import NamedTuple

from runtime.cgroups import files
from runtime.errors import CapabilityError, SyscallError

_LACKING = (errno.ENOENT, errno.EOPNOTSUPP, errno.ENODEV)


class Write(NamedTuple):
    """A value to write to a controller's file.

    If the kernel lacks the file, the result is a warning; with `required`, a CapabilityError for the whole apply; with
    `optional`, nothing.
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
    """Execute the writes in order; returns warnings.

    `directory` gives the directory of a controller's files, or None if it is not available.

    Some limits constrain each other (memory and memory+swap, period and quota, quota and burst). The kernel refuses
    them with EINVAL in one order when they grow, and in the other order when they shrink. So a refused write is retried
    after the others.
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
    """The error for a memory limit that v1 refuses because reclaim cannot reach it, with the present usage (as in
    runc)."""
    usage = files.read_or(f"{place}/memory.usage_in_bytes", "?").strip()
    return SyscallError(
        errno.EBUSY, "write", f"{write.value} to {place}/{write.file} (in use: {usage} bytes)"
    )
