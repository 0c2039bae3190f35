"""The architecture: imports only go down, and importing the package is cheap and does nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "companion"
FLOORS = {
    "files": 0, "compute": 0,
    "data": 1, "models": 1, "runs": 1,
    "learning": 2, "figures": 2, "chapter": 2, "detection": 2, "exercises": 2,
    "inspection": 3, "waveforms": 3, "sequences": 3, "images": 3, "experiments": 3, "card": 3,
    "card_texts": 3, "events": 3, "event_model": 3, "event_report": 3, "image_report": 3,
    "cli_common": 4, "cli_waveforms": 4, "cli_images": 4, "cli_events": 4, "cli_events_output": 4, "cli": 4,
}  # fmt: skip
MAY_NOT = {"models": {"data", "learning"}, "data": {"models"}, "detection": {"models", "learning"}}


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    parts = (name.split(".") for name in names if name.startswith("companion."))
    return {part[1] for part in parts if part[1] in FLOORS}


def floor_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_module_is_short_and_imports_only_what_is_below(path):
    assert len(path.read_text("utf8").splitlines()) <= 400
    own = floor_of(path)
    if own == "__init__":
        assert imported(path) == set()
        return
    for other in imported(path) - {own}:
        assert FLOORS[other] <= FLOORS[own], f"{own} imports {other}"
        assert other not in MAY_NOT.get(own, set()), f"{own} imports {other}"


def test_importing_the_package_has_no_side_effect_and_loads_nothing_heavy():
    code = "import sys, companion; assert not {'torch', 'numpy', 'matplotlib'} & sys.modules.keys()"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_pinned_environment_ends_with_the_package_itself():
    lines = (ROOT / "requirements.txt").read_text("utf8").splitlines()
    assert lines[-1] == "--editable ."
    assert all("==" in line for line in lines[:-1] if not line.startswith("#"))
