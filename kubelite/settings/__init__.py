"""A node's settings: one frozen value, from flags, environment and a file.

A flag takes precedence over `KUBELITE_<NAME>` in the environment, which takes precedence over the configuration file
(`/etc/kubelite/config.yaml`, or `--config`/`KUBELITE_CONFIG`), which takes precedence over the defaults. Names are the
same everywhere: `--pod-cidr`, `KUBELITE_POD_CIDR`, `pod_cidr:` (or `podCidr:`/`pod-cidr:`) in the file.
"""

from __future__ import annotations

from kubelite.settings.loading import DEFAULT_CONFIG, OTHER_VARIABLES, PREFIX, SettingsError
from kubelite.settings.model import EVICTION_HARD, Settings

__all__ = ["DEFAULT_CONFIG", "EVICTION_HARD", "OTHER_VARIABLES", "PREFIX", "Settings", "SettingsError"]
