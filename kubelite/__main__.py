"""`python -m kubelite` is `kubelite`."""

from kubelite.cli.start import main

main()
