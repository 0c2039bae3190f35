"""Look over the chapters as notebooks: python tools/notebooks.py book/*.md book/reference/*.md.

Each must come back from a notebook as it went in, so that JupyterLab can save it without a change that nobody
made. The code of its cells must be clean, for which ruff looks at the notebooks; blank lines are left to
whoever writes the page. Notebooks themselves are never kept: they would hold a second copy of each chapter.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import jupytext
from jupytext.compare import NotebookDifference, test_round_trip_conversion

ROOT = Path(__file__).parents[1]
RULES = "E,F,W,I,UP,B,C4,SIM,RUF,NPY,PERF"
NOT_HERE = "B018,B905"  # a bare expression shows its value, and `zip` may be short on a page
SETTINGS = (
    "line-length = 110",
    "target-version = 'py311'",
    "lint.isort = {known-first-party = ['companion'], lines-after-imports = 1}",
)


def faults(path: Path) -> list[str]:
    """What is wrong with a chapter as a notebook, apart from its code."""
    notebook, found = jupytext.read(path, fmt="md:myst"), []
    try:
        test_round_trip_conversion(notebook, {"extension": ".md", "format_name": "myst"}, update=False)
    except NotebookDifference as difference:
        found.append(f"changes on its way through a notebook: {difference}")
    for number, cell in enumerate(notebook.cells, start=1):
        if cell.cell_type == "code" and not cell.source.strip():
            found.append(f"cell {number} is empty")
    if notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        found.append("asks for another kernel than python3, which readers may not have")
    return found


def lint_code(paths: list[Path]) -> int:
    """Have ruff look at the cells; its exit status."""
    with tempfile.TemporaryDirectory() as folder:
        for path in paths:
            jupytext.write(
                jupytext.read(path), Path(folder) / f"{'-'.join(path.with_suffix('').parts[-3:])}.ipynb"
            )
        settings = [part for setting in SETTINGS for part in ("--config", setting)]
        command = [sys.executable, "-m", "ruff", "check", "--quiet", "--isolated", *settings]
        rules = ["--select", RULES, "--ignore", NOT_HERE]
        return subprocess.run([*command, *rules, folder], check=False).returncode


def main() -> None:
    """Print what was found; exit with 1 if there is anything."""
    chapters = [path for path in map(Path, sys.argv[1:]) if "\nkernelspec:\n" in path.read_text("utf8")]
    found = [f"{path}: {fault}" for path in chapters for fault in faults(path)]
    kept = subprocess.run(
        ["git", "ls-files", "*.ipynb"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    found += [f"{name}: notebooks are made from the chapters, not kept" for name in kept.stdout.split()]
    print(*found, sep="\n", end="\n" if found else "", file=sys.stderr)
    sys.exit(max(lint_code(chapters), bool(found)))


if __name__ == "__main__":
    main()
