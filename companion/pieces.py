"""What the interactive pieces of the pages are made of: recorded numbers as JSON.

A piece is ``NAME.json``, which ``book/_static/pieces/NAME.mjs`` reads. The function of its name writes it to
a folder, or raises a DataError where its data are out of reach.
"""

import json
from pathlib import Path
from typing import Any

from companion.files import atomic_path
from companion.runs import load_run


def _write(folder: Path, name: str, **content: Any) -> None:
    with atomic_path(folder / f"{name}.json") as part:
        part.write_text(json.dumps(content), encoding="utf8")


def depth(folder: Path) -> None:
    """Chapter 1: the recorded runs of nets of all depths, with one recipe."""
    runs = [load_run(name).model_dump(mode="json") for name in ("degradation-live-cpu", "starts-full-cpu")]
    _write(folder, "depth", runs=runs, gradients=load_run("gradients-live-cpu").model_dump(mode="json"))
