"""The controllers of this node. A kind is listed once its controller works; until then its manifests are refused."""

from __future__ import annotations

from kubelite.controllers.model import Controller

CONTROLLERS: tuple[Controller, ...] = ()
