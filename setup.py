"""Which packages a wheel has, and where. Everything else about the project is in pyproject.toml.

`runtime`, `state` and `manifests` are names that other projects use for packages of their own. A wheel therefore has
them inside `kubelite`, in `kubelite/_packages`, which `kubelite/__init__.py` puts first in the search path: nothing
but `kubelite` appears in site-packages.
"""

from __future__ import annotations

from setuptools import find_namespace_packages, setup

PRIVATE = ("manifests", "runtime", "state")


def found(top: str) -> list[str]:
    names = find_namespace_packages(include=[top, f"{top}.*"])
    return [name for name in names if "__pycache__" not in name]


setup(
    packages=[*found("kubelite"), *(f"kubelite._packages.{name}" for top in PRIVATE for name in found(top))],
    package_dir={f"kubelite._packages.{top}": top for top in PRIVATE},
)
