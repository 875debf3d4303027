"""Compare reloaded settings with those of the running node: which take effect at once, and which need a restart."""

from __future__ import annotations

from typing import NamedTuple

from kubelite.settings import Settings

#: Settings that a running node can change. Parts of the node take the others once, when they are created.
RELOADABLE = frozenset(
    {
        "history_size",
        "history_time",
        "image_gc_high_threshold_percent",
        "image_gc_low_threshold_percent",
        "image_gc_period",
        "image_maximum_gc_age",
        "image_minimum_gc_age",
        "relist_seconds",
        "web_token_file",
    }
)
#: Reloadable settings whose value 0 turns a part of the node off. Turning that part on or off needs a restart.
_SWITCHES = ("history_size", "history_time")


class Reload(NamedTuple):
    """`settings`: the node's settings after the reload. `applied` and `restart` name the changed settings that take
    effect at once and those that need a restart."""

    settings: Settings
    applied: tuple[str, ...]
    restart: tuple[str, ...]

    def words(self) -> str:
        """Describe the result of the reload in one line."""
        parts = [f"applied {', '.join(self.applied)}"] if self.applied else []
        if self.restart:
            parts.append(
                f"{', '.join(self.restart)} need a restart: systemctl restart kubelite (pods keep running)"
            )
        return "settings read again: " + ("; ".join(parts) or "nothing has changed")


def plan_reload(running: Settings, read: Settings) -> Reload:
    """Compare the settings of the running node with the reloaded ones."""
    changed = [name for name in Settings.model_fields if getattr(running, name) != getattr(read, name)]
    applied = [name for name in changed if name in RELOADABLE and not _switched(running, read, name)]
    settings = running.model_copy(update={name: getattr(read, name) for name in applied})
    return Reload(settings, tuple(applied), tuple(name for name in changed if name not in applied))


def _switched(running: Settings, read: Settings, name: str) -> bool:
    return name in _SWITCHES and bool(getattr(running, name)) != bool(getattr(read, name))
