"""``python -m companion`` is the command ``companion``; so ``torchrun -m companion`` runs it, too."""

import os
import sys

from companion.cli import app

if __name__ == "__main__":
    if os.environ.get("RANK", "0") != "0":  # under torchrun the first process speaks for all
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    app()
