"""Formats of names and paths. Each is a function that takes a value and returns its problems as a list of sentences.

The wording is that of apimachinery's pkg/util/validation/validation.go.
"""

import ipaddress
import re
from collections.abc import Callable

Format = Callable[[str], list[str]]

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_QUALIFIED = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_CONFIG_KEY = "[-._a-zA-Z0-9]+"

_LABEL_SENTENCE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with "
    f"an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '{_LABEL}')"
)
_SUBDOMAIN_SENTENCE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    f"end with an alphanumeric character (e.g. 'example.com', regex used for validation is '{_SUBDOMAIN}')"
)
_QUALIFIED_SENTENCE = (
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character "
    f"(e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '{_QUALIFIED}')"
)
_LABEL_VALUE_SENTENCE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    f"'({_QUALIFIED})?')"
)
_CONFIG_KEY_SENTENCE = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or "
    f"'key-name', regex used for validation is '{_CONFIG_KEY}')"
)


def _matches(pattern: str, value: str) -> bool:
    return re.fullmatch(pattern, value, re.ASCII) is not None


def _too_long(value: str, limit: int) -> list[str]:
    return [f"must be no more than {limit} bytes"] if len(value.encode()) > limit else []


def dns_label(value: str) -> list[str]:
    return _too_long(value, 63) + ([] if _matches(_LABEL, value) else [_LABEL_SENTENCE])


def dns_subdomain(value: str) -> list[str]:
    return _too_long(value, 253) + ([] if _matches(_SUBDOMAIN, value) else [_SUBDOMAIN_SENTENCE])


def qualified_name(value: str) -> list[str]:
    """Check a key of labels or annotations: an optional DNS subdomain with a slash, a name of up to 63 bytes."""
    prefix, slash, name = value.rpartition("/")
    if "/" in prefix:
        return [
            f"a qualified name {_QUALIFIED_SENTENCE} with an optional DNS subdomain prefix and '/' "
            "(e.g. 'example.com/MyName')"
        ]
    problems = []
    if slash and not prefix:
        problems.append("prefix part must be non-empty")
    elif slash:
        problems += [f"prefix part {sentence}" for sentence in dns_subdomain(prefix)]
    if not name:
        problems.append("name part must be non-empty")
    problems += [f"name part {sentence}" for sentence in _too_long(name, 63)]
    if not _matches(_QUALIFIED, name):
        problems.append(f"name part {_QUALIFIED_SENTENCE}")
    return problems


def label_value(value: str) -> list[str]:
    return _too_long(value, 63) + ([] if _matches(f"({_QUALIFIED})?", value) else [_LABEL_VALUE_SENTENCE])


def config_key(value: str) -> list[str]:
    """Check a key of a ConfigMap or Secret, which becomes a file name."""
    problems = _too_long(value, 253) + ([] if _matches(_CONFIG_KEY, value) else [_CONFIG_KEY_SENTENCE])
    if value in (".", ".."):
        problems.append(f"must not be '{value}'")
    elif value.startswith(".."):
        problems.append("must not start with '..'")
    return problems


def env_name(value: str) -> list[str]:
    """Check a name by the relaxed rules (RelaxedEnvironmentVariableValidation): printable ASCII without `=`."""
    if value and all(" " <= char <= "~" and char != "=" for char in value):
        return []
    return [
        "a valid environment variable name must consist only of printable ASCII characters other than '='"
    ]


def port_name(value: str) -> list[str]:
    """Check a port name: IANA_SVC_NAME (RFC 6335)."""
    problems = _too_long(value, 15)
    if not _matches("[-a-z0-9]+", value):
        problems.append("must contain only alphanumeric characters (a-z, 0-9), and hyphens (-)")
    if not re.search("[a-z]", value):
        problems.append("must contain at least one letter (a-z)")
    if "--" in value:
        problems.append("must not contain consecutive hyphens")
    if value.startswith("-") or value.endswith("-"):
        problems.append("must not begin or end with a hyphen")
    return problems


def port_number(value: int) -> list[str]:
    return [] if 1 <= value <= 65535 else ["must be between 1 and 65535, inclusive"]


def ip_address(value: str) -> list[str]:
    """Check an IPv4 or IPv6 address. A zone (`%eth0`) is refused: it has a meaning on one machine only."""
    try:
        ipaddress.ip_address(value.replace("%", "/"))  # no zones
    except ValueError:
        return ["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"]
    return []


def percent(value: str) -> list[str]:
    if _matches("[0-9]+%", value):
        return []
    return [
        "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used "
        "for validation is '[0-9]+%')"
    ]


def user_id(value: int) -> list[str]:
    return [] if 0 <= value <= 2**31 - 1 else ["must be between 0 and 2147483647, inclusive"]


def file_mode(value: int) -> list[str]:
    return [] if 0 <= value <= 0o777 else ["must be a number between 0 and 0777 (octal), both inclusive"]


def no_backsteps(value: str) -> list[str]:
    return ["must not contain '..'"] if ".." in value.split("/") else []


def relative_path(value: str) -> list[str]:
    """Check a path below a volume: subPath."""
    return (["must be a relative path"] if value.startswith("/") else []) + no_backsteps(value)


def path_segment(value: str) -> list[str]:
    """Check a name that may have any characters which a path of the API can contain (IsPathSegmentName)."""
    if value in (".", ".."):
        return [f"may not be '{value}'"]
    return [f"may not contain '{char}'" for char in "/%" if char in value]


def projected_path(value: str) -> list[str]:
    """Check the path of a key's file: below the volume, and not in conflict with the volume's own `..data` links."""
    problems = relative_path(value)
    if value.startswith("..") and not value.startswith("../"):
        problems.append("must not start with '..'")
    return problems
