"""`python -m kubelite` is `kubelite`."""

from kubelite.cli.main import main

main()
