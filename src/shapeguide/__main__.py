"""`python -m shapeguide` is `shapeguide`; so torchrun can start it."""

import sys

from shapeguide.cli import main

if __name__ == "__main__":
    sys.exit(main())
