"""The console script `kubelite-oci` as pip writes it. `make install` and the Debian package replace it with one that
starts faster (runtime/oci/cli/bundle.py)."""

from __future__ import annotations


def main() -> None:
    from runtime.oci.cli.main import main as whole

    whole()
