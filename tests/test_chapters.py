"""Every chapter runs from top to bottom at smoke scale, as a reader's notebook: away from the repository."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from time import sleep

import jupytext
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell

from companion import notebook
from companion.models.blocks import BasicResidualBlock
from companion.notebook import claim, provenance, show_source
from companion.runs import load_run

ROOT = Path(__file__).parents[1]
BOOK = ROOT / "book"
CHAPTERS = [path for path in sorted(BOOK.glob("*.md")) if "kernelspec" in path.read_text("utf8")]
REFERENCE = [p for p in sorted((BOOK / "reference").glob("*.md")) if "kernelspec" in p.read_text("utf8")]
MAX_CELL_LINES = 25
PREPARED = """
import os, socket, sys
import matplotlib.figure, pandas, sklearn.linear_model, torch._dynamo
from ipykernel.kernelapp import launch_new_instance

with socket.socket(socket.AF_UNIX) as door:
    door.bind(sys.argv[1])
    door.listen()
    while True:
        guest, _ = door.accept()
        if os.fork() == 0:
            folder, *words = guest.makefile().readline().rstrip().split(chr(0))
            os.chdir(folder)
            launch_new_instance(argv=words)
            os._exit(0)
        guest.close()
"""
"""Holds what takes long to import, but not the package, and forks into a kernel for whoever asks."""
ASKING = """
import os, socket, sys
guest = socket.socket(socket.AF_UNIX)
guest.connect(sys.argv[1])
guest.sendall((chr(0).join([os.getcwd(), *sys.argv[2:]]) + chr(10)).encode())
guest.recv(1)  # until that kernel ends
"""
PARTS = (
    "What you'll do.",
    "What you'll learn.",
    "What you need.",
    "**Time.**",
    "## Summary",
    "## References",
)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder into which ``companion`` was installed from a wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    source, wheels, target = folder / "source", folder / "wheels", folder / "installed"
    shutil.copytree(ROOT / "companion", source / "companion", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-deps", "--no-index"]
    subprocess.run(
        [*pip, "wheel", *offline, "--no-build-isolation", "--wheel-dir", str(wheels), str(source)], check=True
    )
    (wheel,) = wheels.glob("companion-*.whl")
    subprocess.run([*pip, "install", *offline, "--target", str(target), str(wheel)], check=True)
    return target


@pytest.fixture(scope="module")
def kernel(installed):
    """The command of a kernel that sees what is installed. Its imports were made once, for all kernels."""
    door = installed.parent / "door"
    environment = os.environ | {
        "PYTHONPATH": str(installed), "COMPANION_SCALE": "smoke",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",  # else read when it is too late
    }  # fmt: skip
    with subprocess.Popen([sys.executable, "-c", PREPARED, door], cwd=installed, env=environment) as server:
        while not door.exists():
            assert server.poll() is None
            sleep(0.02)
        yield [sys.executable, "-S", "-c", ASKING, str(door), "-f", "{connection_file}"]
        server.kill()


@pytest.mark.xdist_group("notebooks")
@pytest.mark.parametrize("path", CHAPTERS + REFERENCE, ids=lambda path: path.stem)
def test_it_runs_as_a_notebook_with_nothing_but_the_installed_package(path, installed, kernel, tmp_path):
    notebook = jupytext.read(path)
    notebook.cells.insert(0, new_code_cell("import companion\nprint(companion.__file__)"))
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    client.create_kernel_manager().kernel_spec.argv[:] = kernel
    client.execute()
    assert notebook.cells.pop(0).outputs[0].text.startswith(str(installed))
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert outputs
    drawn = [cell for cell in notebook.cells if cell.cell_type == "code" and "plt.show()" in cell.source]
    assert all(any("image/png" in o.get("data", {}) for o in cell.outputs) for cell in drawn)
    text = path.read_text("utf8")
    glued = {o["metadata"]["scrapbook"]["name"] for o in outputs if "scrapbook" in o.get("metadata", {})}
    used = set(re.findall(r"\{glue:(?:text\}`|figure\} )([^`:\n]+)", text))
    assert used <= glued, f"not handed to the text: {used - glued}"
    assert glued <= used, f"handed to the text and not used: {glued - used}"
    shown = [str(output.get("data", {}).get("text/plain", "")) for output in outputs]
    reports = [each for each in shown if re.match(r"[\w-]+: (not yet|all) right\n", each)]
    assert all(": all right\n" in report for report in reports), reports
    assert reports or "{exercise-start}" not in text, "no exercise can be checked"


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_its_cells_are_short_and_its_figures_have_captions_and_alt_text(path):
    for cell in jupytext.read(path).cells:
        if cell.cell_type != "code":
            continue
        assert len(cell.source.splitlines()) <= MAX_CELL_LINES, cell.source
        if "plt.show()" in cell.source:
            about = cell.metadata["mystnb"]
            assert len(about["image"]["alt"]) > 40
            assert about["figure"]["caption"]
            assert about["figure"]["name"].startswith("fig-")


@pytest.mark.parametrize("path", [p for p in CHAPTERS if p.stem != "index"], ids=lambda path: path.stem)
def test_it_has_the_parts_of_a_chapter(path):
    text = path.read_text("utf8")
    for part in PARTS:
        assert part in text, part
    exercises = re.findall(r"\{exercise-start\}.*\n:label: (\S+)", text)
    solutions = re.findall(r"\{solution-start\} (\S+)\n:class: dropdown", text)
    assert 3 <= len(exercises) <= 5
    assert exercises == solutions
    questions = text.partition("## Questions\n")[2].partition("\n## ")[0]
    whole = r"^\*\*.+\?\*\*\n((?:\d\. .+\n)+)\n?```\{dropdown\} Answer\n\*\*(\d)\.\*\* "
    asked = re.findall(whole, questions, re.MULTILINE)
    assert 3 <= len(asked) == questions.count("{dropdown}") <= 5
    assert all(int(right) <= len(choices.splitlines()) for choices, right in asked)
    assert re.search("predict[:,]|before you (?:read|go) on", text.lower()), "no prediction is asked for"
    level = r"\{exercise-start\}.*\n.*\n```\n(?:Easy|Medium|Hard|Open), (?:\d\d minutes|an hour)\. "
    assert len(re.findall(level, text)) == len(exercises)


def test_the_source_that_is_shown_is_the_source_that_runs():
    shown = show_source(BasicResidualBlock).data
    assert "class BasicResidualBlock(nn.Module):" in shown
    assert shown.startswith("```python\n# companion.models.blocks")


def test_a_claim_fails_when_the_numbers_do_not_bear_it_out(monkeypatch):
    claim(True, "all is well")
    with pytest.raises(AssertionError, match="all is well"):
        claim(False, "all is well")
    monkeypatch.setenv("COMPANION_SCALE", "smoke")
    claim(False, "all is well", live=True)
    monkeypatch.setattr(notebook, "STAND_INS", ["a set out of reach"])
    claim(False, "all is well")


def test_provenance_says_where_a_run_comes_from():
    run = load_run("degradation-full-cpu")
    line = provenance(run).data
    for part in (run.finished[:10], run.hardware, run.commit[:7], "cifar10"):
        assert part in line
    fake = run.model_copy(update={"data": run.data.model_copy(update={"synthetic": True}), "commit": None})
    assert "(synthetic)" in provenance(fake).data
