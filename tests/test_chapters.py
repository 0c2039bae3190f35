"""Every chapter runs from top to bottom at smoke scale, from the repository and from its own folder."""

import re
from pathlib import Path

import jupytext
import matplotlib as mpl
import numpy as np
import pytest
from nbclient import NotebookClient

from companion import figures
from companion.models.blocks import BasicResidualBlock
from companion.notebook import claim, provenance, show_source
from companion.runs import load_run

BOOK = Path(__file__).parents[1] / "book"
CHAPTERS = [path for path in sorted(BOOK.glob("*.md")) if "kernelspec" in path.read_text("utf8")]
REFERENCE = [p for p in sorted((BOOK / "reference").glob("*.md")) if "kernelspec" in p.read_text("utf8")]
MAX_CELL_LINES = 25
PARTS = (
    "What you'll do.",
    "What you'll learn.",
    "What you need.",
    "**Time.**",
    "## Summary",
    "## References",
)


@pytest.mark.parametrize("path", CHAPTERS + REFERENCE, ids=lambda path: path.stem)
def test_it_runs_as_a_notebook(path, tmp_path, monkeypatch):
    monkeypatch.setenv("COMPANION_SCALE", "smoke")
    notebook = jupytext.read(path)
    folder = path.parent if path in CHAPTERS else tmp_path
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert outputs
    text = path.read_text("utf8")
    glued = {o["metadata"]["scrapbook"]["name"] for o in outputs if "scrapbook" in o.get("metadata", {})}
    used = set(re.findall(r"\{glue:text\}`([^`:]+)", text))
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


def test_provenance_says_where_a_run_comes_from():
    run = load_run("degradation-full-cpu")
    line = provenance(run).data
    for part in (run.finished[:10], run.hardware, run.commit[:7], "cifar10"):
        assert part in line
    fake = run.model_copy(update={"data": run.data.model_copy(update={"synthetic": True}), "commit": None})
    assert "(synthetic)" in provenance(fake).data


def test_figures_show_the_spread_and_say_what_is_synthetic():
    figures.use_style()
    curves = {"plain-20": np.ones((3, 10)), "resnet-8": np.ones((1, 10))}
    fig = figures.plot_nets(curves, 100, ylabel="loss", synthetic=True)
    (ax,) = fig.axes
    assert len(ax.collections) == 1  # the band of the three seeds
    assert ax.lines[0].get_xdata()[-1] == 100
    assert "synthetic" in ax.get_title(loc="right")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["plain-20", "ResNet-8"]
    mpl.pyplot.close(fig)
