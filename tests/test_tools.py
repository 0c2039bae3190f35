"""What `make lint` runs besides ruff and mypy."""

import pytest

from tests.site.test_book import HEADER
from tools.links import broken_files
from tools.notebooks import faults, lint_code

CHAPTER = (
    HEADER
    + """\
```{code-cell} ipython3
import torch

torch.ones(3)
```
"""
)


@pytest.fixture
def chapter(tmp_path):
    """A chapter that is as it should be."""
    path = tmp_path / "chapter.md"
    path.write_text(CHAPTER)
    return path


def test_a_good_chapter_passes(chapter, capfd):
    assert faults(chapter) == []
    assert lint_code([chapter]) == 0, capfd.readouterr().out


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("torch.ones(3)\n", "\n```\n\n```{code-cell} ipython3\n", "cell 3 is empty"),
        ("  name: python3\n", "  name: mine\n", "another kernel"),
    ],
)
def test_a_chapter_that_is_no_good_notebook_is_reported(chapter, old, new, complaint):
    chapter.write_text(CHAPTER.replace(old, new))
    assert any(complaint in fault for fault in faults(chapter))


def test_unclean_code_of_a_cell_is_reported(chapter, capfd):
    chapter.write_text(CHAPTER.replace("import torch\n", "import os, torch\n"))
    assert lint_code([chapter]) != 0
    assert "F401" in capfd.readouterr().out


def test_links_to_files(tmp_path):
    (tmp_path / "a.md").write_text("[x](b.md#one) [z](https://example.org) `[n](no.md)`")
    (tmp_path / "b.md").write_text("[x](a.md) [y](gone.md)")
    assert broken_files(tmp_path, ["a.md", "b.md"]) == ["b.md: gone.md"]
