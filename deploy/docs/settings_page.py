"""docs/reference/settings.md, from the fields of `kubelite.settings.Settings` and their descriptions."""

from __future__ import annotations

import ast
import inspect
import textwrap
import types
import typing
from collections.abc import Iterable
from enum import StrEnum
from typing import Any, Final

from pydantic.fields import FieldInfo

from deploy.docs.tables import table, titled
from kubelite import settings
from kubelite.cli.node.serve import serve
from kubelite.daemon.reload import RELOADABLE
from kubelite.kube.setting_types import parse_seconds

HEAD: Final = """# Settings

Set a value in one of three places. The first one that has it wins:

1. a flag of `kubelite serve`, if the setting has one;
2. an environment variable: the name in capitals after `KUBELITE_`;
3. the configuration file, `/etc/kubelite/config.yaml`. `--config FILE` or `KUBELITE_CONFIG` names another file.

```yaml
# /etc/kubelite/config.yaml
pod_cidr: 10.90.0.0/16
eviction_hard:
  memory.available: 200Mi
  nodefs.available: 5%
```

The configuration file also takes names as kubelet spells them: `podCIDR`, `imageGCHighThresholdPercent`,
`shutdownGracePeriod`. An unknown name or an impossible value stops `kubelite serve` with exit code 2.

A *duration* is a number of seconds or a text such as `90s`, `2m0s` or `24h`. *Seconds* are a number. In a variable, a
*list* or a *map* is written `a=1,b=2` (thresholds: `a<1,b<2`); in the file, in the same way or as a YAML mapping.

To run several nodes on one machine, give each its own `manifests`, `root`, `run_dir`, `log_dir`, `listen`, `bridge`,
`pod_cidr`, `cgroup_parent` and `node_name`. Commands find their node by `--socket` or `KUBELITE_SOCKET`.
"""

GROUPS: Final[dict[str, tuple[str, ...]]] = {
    "Directories": ("manifests", "root", "run_dir", "log_dir", "relist_seconds"),
    "Node and network": (
        "node_name",
        "network",
        "cni_conf_dir",
        "cni_bin_dirs",
        "cni_plugin_timeout",
        "bridge",
        "pod_cidr",
        "pod_routing",
        "service_cidr",
        "node_port_range",
        "service_counters",
        "ingress_image",
        "ingress_http_port",
        "ingress_https_port",
        "cgroup_parent",
        "cluster_port",
        "cluster_domain",
        "cluster_dns",
        "dns_stub_domains",
        "dns_records",
        "resolv_conf",
    ),
    "API": (
        "api_address",
        "automount_service_account_tokens",
        "api_group",
        "audit_log_path",
        "audit_log_max_size",
        "audit_log_max_files",
    ),
    "HTTP server and traces": (
        "listen",
        "metrics_token_file",
        "web_token_file",
        "tls_cert_file",
        "tls_private_key_file",
        "client_ca_file",
        "web_hosts",
        "otlp_endpoint",
    ),
    "Resources": (
        "max_pods",
        "kube_reserved",
        "system_reserved",
        "extended_resources",
        "plugin_dir",
        "cdi_spec_dirs",
        "pod_pids_limit",
        "cpu_manager_policy",
        "reserved_cpus",
        "memory_qos",
        "memory_throttling_factor",
        "memory_reservation_policy",
        "memory_swap_behavior",
        "single_process_oom_kill",
    ),
    "Priority and runtime classes, sysctls": (
        "priority_classes",
        "runtime_classes",
        "allowed_unsafe_sysctls",
    ),
    "Pod security": (
        "pod_security_enforce",
        "pod_security_warn",
        "pod_security_audit",
        "pod_security_namespaces",
        "pod_security_labels",
        "allowed_host_paths",
        "no_new_privileges",
        "socketcall",
        "user_namespaces",
    ),
    "Eviction": ("eviction_hard", "eviction_pressure_transition_period", "eviction_monitoring_period"),
    "Restarts and shutdown": (
        "crash_backoff_initial",
        "crash_backoff_max",
        "shutdown_grace_period",
        "shutdown_grace_period_critical_pods",
        "shutdown_grace_period_by_pod_priority",
    ),
    "Image pulls": (
        "image_policy",
        "image_pull_credentials_verification_policy",
        "preloaded_images_verification_allowlist",
        "image_digests_only",
        "max_parallel_pulls",
        "image_worker_memory",
        "build_memory",
        "serialize_image_pulls",
        "registry_pull_qps",
        "registry_burst",
        "pull_backoff_initial",
        "pull_backoff_max",
    ),
    "Image garbage collection": (
        "image_gc_high_threshold_percent",
        "image_gc_low_threshold_percent",
        "image_minimum_gc_age",
        "image_maximum_gc_age",
        "image_gc_period",
    ),
    "Volumes, logs and history": (
        "volume_reclaim_policy",
        "log_max_size",
        "log_max_files",
        "history_time",
        "history_size",
    ),
}

TAIL: Final = """
## Other environment variables

| variable | read by | meaning |
|---|---|---|
| `KUBELITE_SOCKET` | all commands | The daemon's socket; `--socket` wins. Default: `/run/kubelite/kubelite.sock`. |
| `KUBELITE_CONFIG` | `kubelite serve` | The configuration file; `--config` wins. |
| `KUBELITE_LOG_LEVEL` | `kubelite serve` | `DEBUG`, `INFO` (the default), `WARNING` or `ERROR`. |
| `KUBELITE_LOG_FORMAT` | `kubelite serve` | `text` (the default) or `json`: a JSON object a line. |
"""


def descriptions() -> dict[str, str]:
    """The string that follows each field in the class."""
    [found] = ast.parse(inspect.getsource(settings.Settings)).body
    assert isinstance(found, ast.ClassDef)
    said: dict[str, str] = {}
    for field, text in zip(found.body, found.body[1:], strict=False):
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            said[field.target.id] = " ".join(str(text.value.value).split())
    return said


def page() -> str:
    fields, said = settings.Settings.model_fields, descriptions()
    flags = {option.name for option in serve.params}
    grouped = [name for names in GROUPS.values() for name in names]
    if sorted(grouped) != sorted(fields):
        raise ValueError(f"GROUPS and the settings differ: {sorted(set(grouped) ^ set(fields))}")
    parts = [HEAD, _reloading()]
    for title, names in GROUPS.items():
        parts += [f"\n## {title}\n\n", table(HEADINGS, (_row(n, fields[n], said[n], flags) for n in names))]
    return titled("".join([*parts, TAIL]))


def _reloading() -> str:
    """Say how a change takes effect."""
    names = textwrap.fill(
        f"{', '.join(f'`{name}`' for name in sorted(RELOADABLE))}.", 118, break_on_hyphens=False
    )
    return f"""
## Apply a change

`sudo systemctl restart kubelite` applies all changes. Pods keep running. `sudo systemctl reload kubelite` (SIGHUP)
reads the settings again without a restart and applies the changes of these:

{names}

The log names the changed settings that need a restart (`journalctl -u kubelite`). With an invalid file nothing changes,
and the log says why. History cannot be switched on or off by a reload. A daemon that was started in a terminal has no
reload: there, SIGHUP means that the terminal is gone, and ends it.
"""


HEADINGS: Final = ("setting", "type", "default", "meaning")


def _row(name: str, field: FieldInfo, said: str, flags: Iterable[str | None]) -> tuple[str, str, str, str]:
    flag = f"<br>`--{name.replace('_', '-')}`" if name in flags else ""
    kind = type_of(field)
    return f"`{name}`{flag}", kind, _default(name, field.get_default(call_default_factory=True), kind), said


def type_of(field: FieldInfo) -> str:
    annotation = field.annotation
    if typing.get_origin(annotation) is typing.Literal:
        return " or ".join(f"`{one}`" for one in typing.get_args(annotation))
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return " or ".join(f"`{one}`" for one in annotation)
    if annotation is float:
        if any(getattr(one, "func", None) is parse_seconds for one in field.metadata):
            return "duration"
        return "seconds" if _positive(field) else "number"
    if typing.get_origin(annotation) is dict:
        return "map"
    named: dict[Any, str] = {bool: "boolean", int: "integer", str: "text"}
    if annotation is str and any(hasattr(one, "func") for one in field.metadata):
        return "list"
    if isinstance(annotation, types.GenericAlias) or annotation not in named:
        raise ValueError(f"a setting of another type: {annotation}")
    return named[annotation]


def _positive(field: FieldInfo) -> bool:
    """Whether it is a setting in plain seconds: greater than zero, without an upper bound."""
    bounds = {type(one).__name__ for one in field.metadata}
    return "Gt" in bounds and "Le" not in bounds


def _default(name: str, value: Any, kind: str) -> str:
    if name in {"log_max_size", "history_size"}:
        return f"{value} ({value >> 20} MiB)"
    if value in ("", {}):
        return ""
    if kind == "duration":
        return f"`{duration(value)}`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, float):
        return f"`{value:g}`"
    return (
        f"`{value}`"
        if not isinstance(value, str) or "," not in value
        else "<br>".join(f"`{part}`" for part in value.split(","))
    )


def duration(seconds: float) -> str:
    """300.0 → 5m, a form that the configuration accepts."""
    for unit, length in (("h", 3600), ("m", 60), ("s", 1)):
        if seconds and seconds % length == 0:
            return f"{seconds / length:g}{unit}"
    return f"{seconds:g}"
