"""Makes `python -m kubelite` run `kubelite`."""

from kubelite.cli.start import main

main()
