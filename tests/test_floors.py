"""The architecture: imports only go down, and importing the package is cheap and does nothing."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import companion
from companion.experiments.base import TABLE

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "companion"
FLOORS = {
    "files": 0, "compute": 0, "processes": 0, "workers": 0, "__main__": 5,
    "data": 1, "models": 1, "runs": 1,
    "training": 2, "objectives": 2, "detection": 2, "figures": 2, "notebook": 2, "checker": 2, "exercises": 2,
    "estimators": 3, "inspection": 3, "experiments": 3, "model_cards": 3,
    "pieces": 4, "cli_common": 4, "cli_waveforms": 4, "cli_images": 4, "cli_events": 4, "cli": 4,
}  # fmt: skip
MAY_NOT = {
    "models": {"data", "training", "objectives"},
    "data": {"models"},
    "detection": {"models", "training", "objectives"},
}


BUDGET = 13_700
"""Lines of the package, docstrings and blanks included; raised only for a run that was asked for."""
BESIDE = 2_219
"""The same of extensions, tools and benchmarks; raised once, to execute pages side by side."""
LONGEST = 350
FILES = sorted(PACKAGE.rglob("*.py"))


def imported(path: Path) -> set[Path]:
    """The package's files that ``path`` imports anywhere, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    parts = [name.split(".") for name in names if name.startswith("companion.")]
    return {file for part in parts if (file := ROOT.joinpath(*part).with_suffix(".py")).is_file()}


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def floor_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_module_is_short_and_imports_only_what_is_below(path):
    assert len(path.read_text("utf8").splitlines()) <= LONGEST
    own = floor_of(path)
    if own == "__init__":
        assert imported(path) == set()
        return
    for other in {floor_of(file) for file in imported(path)} - {own}:
        assert FLOORS[other] <= FLOORS[own], f"{own} imports {other}"
        assert other not in MAY_NOT.get(own, set()), f"{own} imports {other}"


def test_no_module_imports_itself_by_way_of_others():
    below = {path: imported(path) for path in FILES if path.stem != "__init__"}
    found = set()
    for start in below:
        reached, new = set(), below[start]
        while new:
            reached |= new
            new = {other for path in new for other in below.get(path, ())} - reached
        found |= {start} if start in reached else set()
    assert {name_of(path) for path in found} == set()


def test_the_package_is_small():
    beside = [path for name in ("book/_ext", "tools", "benchmarks") for path in (ROOT / name).glob("*.py")]
    for files, most in ((FILES, BUDGET), (beside, BESIDE)):
        assert sum(len(path.read_text("utf8").splitlines()) for path in files) <= most


def test_the_map_of_chapters_names_what_is_there():
    lines = companion.__doc__.split("::\n\n")[1].split("\n\n")[0].splitlines()
    starts = [lines[0].index(folder) for folder in lines[0].split()]
    for folder, start, end in zip(lines[0].split(), starts, [*starts[1:], None], strict=True):
        for name in re.findall(r"\w+", " ".join(line[start:end] for line in lines[1:])):
            assert list(
                (PACKAGE / folder).glob(f"{name}.py" if folder != "recorded" else f"{name}-*.json")
            ), name
    assert [line.split()[0] for line in lines[1:] if line[:5].strip()] == [str(n) for n in range(1, 11)]
    told = set(re.findall(r"[a-z]\w+", " ".join(lines[1:])))
    assert {path.name.rpartition("-full")[0] for path in (PACKAGE / "recorded").glob("*-full-*.json")} <= told
    assert {own["module"] for own in TABLE.values()} <= told


def test_importing_the_package_has_no_side_effect_and_loads_nothing_heavy():
    code = "import sys, companion; assert not {'torch', 'numpy', 'matplotlib'} & sys.modules.keys()"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_pinned_environment_ends_with_the_package_itself():
    lines = (ROOT / "requirements.txt").read_text("utf8").splitlines()
    assert lines[-1] == "--editable ."
    assert all("==" in line for line in lines[:-1] if not line.startswith("#"))
