"""Compile requirements.txt from pyproject.toml, for Python 3.11 to 3.14 on any platform.

torch pins its CUDA libraries itself. They are left out, so that a CPU build of torch needs none.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
HEADER = """\
# The whole environment, pinned for Python 3.11 to 3.14; made by `make lock` from pyproject.toml.
# torch itself pins its CUDA libraries, so they are not repeated here and a CPU build of torch needs none.
"""
TORCHS_OWN = re.compile(r"^(nvidia-|cuda-|triton==)")


def main() -> None:
    """Write requirements.txt."""
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "uv"], check=True)
    command = [sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", "--universal", "--quiet"]
    command += ["--python-version", "3.11", "--extra", "book", "--extra", "test"]
    command += ["--upgrade", "--no-header", "--no-annotate"]
    compiled = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
    lines = [line for line in compiled.splitlines() if not TORCHS_OWN.match(line)]
    (ROOT / "requirements.txt").write_text(HEADER + "\n".join(lines) + "\n--editable .\n", encoding="utf8")


if __name__ == "__main__":
    main()
