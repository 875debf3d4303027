"""Where settings come from: the environment and the configuration file."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

DEFAULT_CONFIG = "/etc/kubelite/config.yaml"
PREFIX = "KUBELITE_"
#: Environment variables with the prefix that are not settings of the node.
OTHER_VARIABLES = frozenset({"CONFIG", "LOG_FORMAT", "LOG_LEVEL", "SOCKET"})

#: kubelet's name of a setting, and ours where it differs.
KUBELETS = {"max_parallel_image_pulls": "max_parallel_pulls"}


class SettingsError(Exception):
    """A setting is unknown or has an invalid value. The message names it and its origin."""


def from_environment(environ: Mapping[str, str]) -> dict[str, str]:
    names = (name for name in environ if name.startswith(PREFIX))
    return {
        name.removeprefix(PREFIX).lower(): environ[name]
        for name in names
        if name.removeprefix(PREFIX) not in OTHER_VARIABLES
    }


def from_file(path: str, *, required: bool) -> dict[str, Any]:
    try:
        data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        if required:
            raise SettingsError(f"{path}: no such configuration file") from None
        return {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise SettingsError(f"{path}: must consist of `name: value` lines")
    return {_snake(str(key)): value for key, value in data.items()}


def _snake(key: str) -> str:
    """Convert imageGCHighThresholdPercent or image-gc-high-threshold-percent to image_gc_high_threshold_percent."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", key).lower().replace("-", "_")


def check_known(key: str, place: str, names: Collection[str]) -> None:
    """Raise SettingsError, with the nearest name, if `key` is none of `names`."""
    if key in names:
        return
    near = difflib.get_close_matches(key, names, 1)
    hint = f', did you mean "{near[0]}"?' if near else ""
    raise SettingsError(f'{place}: unknown setting "{key}"{hint}')
