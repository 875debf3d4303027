"""The type of a JSON object: a Kubernetes object, a part of one, or any other document of the API."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]
