"""`python -m kubelite` is `kubelite`."""

import sys

from kubelite.cli.main import main

sys.exit(main())
