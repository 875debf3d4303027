"""Entry point of the console script `kubelite-oci` that pip installs. `make install` and the Debian package replace
that script with one that starts faster (runtime/oci/cli/bundle.py)."""

from __future__ import annotations


def main() -> None:
    from runtime.oci.cli.main import main as whole

    whole()
