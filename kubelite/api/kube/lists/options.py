"""Which versions of a list, and which beginnings of a watch, a request may ask for. Pure.

Source: apimachinery pkg/apis/meta/internalversion/validation/validation.go (ValidateListOptions, validateWatchOptions);
apiserver pkg/storage/etcd3/store.go (GetList) and pkg/storage/errors.go (NewTooLargeResourceVersionError).
"""

from __future__ import annotations

from collections.abc import Mapping

from kubelite.kube.errors import ApiError, bad_request

_EXACT, _NOT_OLDER = "Exact", "NotOlderThan"
_RETRY_SECONDS = 1
_CONTINUED = "Forbidden: resourceVersionMatch is forbidden when continue is provided"


def check_list_options(query: Mapping[str, str], current: int) -> None:
    """Check which version of a list a query asks for. `current`: the version of the answer. Raises ApiError. An older
    version cannot be read, as on a cluster after a compaction of etcd."""
    wanted, match = query.get("resourceVersion", ""), query.get("resourceVersionMatch", "")
    if match and not wanted:
        raise _invalid("Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided")
    if match and query.get("continue"):
        raise _invalid(_CONTINUED)
    if match not in ("", _EXACT, _NOT_OLDER):
        raise _invalid(f'Unsupported value: "{match}": supported values: "{_EXACT}", "{_NOT_OLDER}"')
    if match == _EXACT and wanted == "0":
        raise _invalid('Forbidden: resourceVersionMatch "exact" is forbidden for resourceVersion "0"')
    if query.get("sendInitialEvents"):
        raise _invalid("Forbidden: sendInitialEvents is forbidden for list", "sendInitialEvents")
    version = _number(wanted)
    if version and query.get("continue"):
        raise bad_request("specifying resource version is not allowed when using continue")
    if match == _EXACT and version < current:
        raise ApiError("Expired", f"The resourceVersion {wanted} is too old: only {current} can be listed.")
    if version > current:
        raise too_large(version, current)


def check_watch_options(query: Mapping[str, str], current: int) -> None:
    """Check with what a watch may begin. Raises ApiError."""
    match = query.get("resourceVersionMatch", "")
    if query.get("sendInitialEvents"):
        if match != _NOT_OLDER:
            raise _invalid(
                f"Forbidden: sendInitialEvents requires setting resourceVersionMatch to {_NOT_OLDER}"
            )
    elif match:
        words = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
        raise _invalid(f"Forbidden: {words}")
    if match and query.get("continue"):
        raise _invalid(_CONTINUED)
    version = _number(query.get("resourceVersion", ""))
    if match and version > current:
        raise too_large(version, current)


def _number(text: str) -> int:
    if text and not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise bad_request(f'resourceVersion: Invalid value: "{text[:40]}": it is no number')
    return int(text or 0)


def too_large(wanted: int, current: int) -> ApiError:
    """Return the error for a version that the node has not reached: the client saw another node, or an older store."""
    causes = [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]
    words = f"Too large resource version: {wanted}, current: {current}"
    details = {"causes": causes, "retryAfterSeconds": _RETRY_SECONDS}
    return ApiError("Timeout", f"Timeout: {words}", details=details, code=504)


def _invalid(said: str, field: str = "resourceVersionMatch") -> ApiError:
    return ApiError("Invalid", f'ListOptions.meta.k8s.io "" is invalid: {field}: {said}')
