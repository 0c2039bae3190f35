"""Every notebook that readers download runs from top to bottom: `make check`, after `make book`.

The notebooks are run at smoke scale, in a folder outside the repository, with ``companion`` as it is
installed and not as it lies here. (`make test` runs the chapters' sources.)
"""

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.site.browser import HTML, ROOT

SOURCES = HTML / "_sources"
NOTEBOOKS = sorted(path.relative_to(SOURCES).as_posix() for path in SOURCES.rglob("*.ipynb"))
AT_ONCE = 2
ORIGIN = "import companion\nassert companion.__file__.startswith({folder!r}), companion.__file__"

pytestmark = pytest.mark.site


def install(folder: Path) -> Path:
    """Install ``companion`` from a wheel into a folder, and leave no traces in the repository."""
    source = folder / "source"
    shutil.copytree(ROOT / "companion", source / "companion", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    wheels, target = folder / "wheels", folder / "installed"
    offline = ["--no-deps", "--no-index"]
    subprocess.run(
        [*pip, "wheel", *offline, "--no-build-isolation", "--wheel-dir", str(wheels), str(source)], check=True
    )
    (wheel,) = wheels.glob("companion-*.whl")
    subprocess.run([*pip, "install", *offline, "--target", str(target), str(wheel)], check=True)
    return target


def shown(notebook: nbformat.NotebookNode) -> list[int]:
    """The numbers of the code cells that show something."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    kinds = [{output.output_type for output in cell.outputs} for cell in cells]
    return [number for number, kind in enumerate(kinds) if kind & {"display_data", "execute_result"}]


async def run(path: Path, installed: Path, folder: Path) -> str:
    """Run a notebook as a reader would.

    Returns:
        What is wrong, or ``""``.
    """
    notebook = nbformat.read(path, as_version=4)
    before = shown(notebook)
    check = nbformat.v4.new_code_cell(ORIGIN.format(folder=str(installed)))
    notebook.cells.insert(0, check)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    variables = {"PYTHONPATH": str(installed), "COMPANION_SCALE": "smoke", "OMP_NUM_THREADS": "1"}
    folder.mkdir(parents=True)
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}})
    try:
        await client.async_execute(env=os.environ | variables)
    except Exception as error:
        return str(error)
    notebook.cells.remove(check)
    missing = set(before) - set(shown(notebook))
    return f"code cells {sorted(missing)} no longer show anything" if missing else ""


async def run_all(folder: Path) -> dict[str, str]:
    """Run all notebooks, two at a time."""
    installed = install(folder)
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(name: str) -> str:
        async with gate:
            return await run(SOURCES / name, installed, folder / "readers" / name)

    return dict(zip(NOTEBOOKS, await asyncio.gather(*map(one, NOTEBOOKS)), strict=True))


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What is wrong with each notebook."""
    assert NOTEBOOKS
    return asyncio.run(run_all(tmp_path_factory.mktemp("notebooks")))


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_download_runs_with_nothing_but_the_installed_package(results, name):
    assert results[name] == ""


def test_a_notebook_that_fails_is_noticed(tmp_path):
    good = nbformat.v4.new_code_cell("1", outputs=[nbformat.v4.new_output("execute_result")])
    silent = nbformat.v4.new_code_cell("2;", outputs=[nbformat.v4.new_output("execute_result")])
    bad = nbformat.v4.new_code_cell("1 / 0")
    (tmp_path / "companion").mkdir()
    (tmp_path / "companion" / "__init__.py").touch()
    for name, cells, complaint in (
        ("good", [good], ""),
        ("bad", [good, bad], "ZeroDivisionError"),
        ("silent", [good, silent], "code cells [1] no longer show anything"),
    ):
        nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / f"{name}.ipynb")
        result = asyncio.run(run(tmp_path / f"{name}.ipynb", tmp_path, tmp_path / name))
        assert complaint in result
        assert bool(complaint) == bool(result)
    elsewhere = asyncio.run(run(tmp_path / "good.ipynb", tmp_path / "nowhere", tmp_path / "elsewhere"))
    assert "AssertionError" in elsewhere or "ModuleNotFoundError" in elsewhere
