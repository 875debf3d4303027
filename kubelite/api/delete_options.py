"""The body of a DELETE: DeleteOptions in JSON or in Kubernetes' protobuf, with the options of the query.

kubectl sends protobuf where it knows the type of an object: `kubectl drain --disable-eviction` deletes pods so.
"""

from __future__ import annotations

import re
from typing import Any

from starlette.requests import Request

from kubelite.api.kube.writes.bodies import data_of
from kubelite.kube.errors import bad_request
from kubelite.kube.json import Json

_ALL = ["All"]
_NUMBER = re.compile(r"[0-9]{1,18}")
_LONGEST = 2**31 - 1  # seconds of grace: 68 years, longer than any node runs


async def delete_options(request: Request) -> Json:
    """Return the options, those of the query before those of the body. Raises BadRequest."""
    options = await data_of(request) if (await request.body()).strip() else {}
    if not isinstance(options, dict) or not isinstance(options.get("preconditions") or {}, dict):
        raise bad_request("the body is not a DeleteOptions document")
    query = request.query_params
    if text := query.get("gracePeriodSeconds"):
        options["gracePeriodSeconds"] = int(text) if _NUMBER.fullmatch(text) else text
    if text := query.get("propagationPolicy"):
        options["propagationPolicy"] = text
    grace = options.get("gracePeriodSeconds")
    if grace is not None and (type(grace) is not int or not 0 <= grace <= _LONGEST):
        raise bad_request(f"gracePeriodSeconds must be a whole number of seconds, not {grace!r}")
    return options


def dry_run(query: list[str], options: Any) -> bool:
    """Return whether nothing shall be changed (propagateDryRun). `query`: the values of the parameter `dryRun`;
    `options`: the field of that name. Raises BadRequest."""
    if query and options and query != options:
        raise bad_request(f"Non-matching dry-run options in request and content: {query} and {options}")
    wanted = query or options or []
    if wanted not in ([], _ALL):
        raise bad_request(f"dryRun must be All, not {wanted!r}")
    return bool(wanted)
