"""The strict, cached build, on a small book with the real extensions and a stand-in for the package."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from book_assets import ASSETS, cache_key

ROOT = Path(__file__).parents[2]

HEADER = """\
---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

# A chapter

"""
CHAPTER = """\
```{code-cell} ipython3
:tags: [remove-input]

import sys
from pathlib import Path

from companion.answer import answer
from companion.notebook import glue

with Path("executions.txt").open("a") as file:
    file.write("x")
print("before")
print("a bar of progress", file=sys.stderr)
glue("share", answer() / 7)
print("after")
answer()
```

A share of {glue:text}`share:.2f`.
"""
TEXT = """
(sec-more)=

## More

As {cite:t}`he2016deep` say in {doc}`chapter`, {doc}`the one page <../book/chapter>`.
See {ref}`sec-more` and {numref}`fig-card`.

```{bibliography}
:filter: docname in docnames
```
"""
PACKAGE = {
    "__init__.py": '"""A stand-in."""\n',
    "answer.py": "def answer():\n    return 6\n",
    "data/__init__.py": "def available():\n    return {'cifar10': ''}\n",
    "experiments/__init__.py": "",
    "experiments/base.py": "def current_scale():\n    return 'live'\n",
    "objectives/__init__.py": "",
}
REAL_MODULES = ("notebook.py", "compute.py", "files.py", "runs.py", "data/download.py", "data/registry.toml")

pytestmark = pytest.mark.xdist_group("book")  # one after the other: they share a book


class Book:
    """A book in a temporary folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("_config.yml", "references.bib", "requirements.txt"):
            shutil.copy(ROOT / name, folder / name)
        for name in ("book/_ext", "book/_static"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        self.write("book/_ext/number_exceptions.toml", "# none\n")  # not those of the real pages
        for name, text in PACKAGE.items():
            self.write(f"companion/{name}", text)
        for name in REAL_MODULES:
            self.write(f"companion/{name}", (ROOT / "companion" / name).read_text("utf8"))
        self.write("_toc.yml", "format: jb-book\nroot: book/index\nchapters:\n  - file: book/chapter\n")
        self.write("book/index.md", "# A book\n\nSee {doc}`chapter`.\n")
        self.write("book/chapter.md", HEADER + CHAPTER)
        # the front-end assets are beside the point: an empty folder stands for them
        (folder / "assets" / cache_key(ASSETS)).mkdir(parents=True)

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf8")

    def build(self, **variables: str) -> tuple[int, str]:
        """Exit status and output of a build, as a reader starts it with these environment variables."""
        own = {"PYTHONPATH": str(self.folder), "COMPANION_ASSETS": str(self.folder / "assets")}
        plain = {"NO_COLOR": "1", "BOOK_URL": "", "BOOK_REPOSITORY": ""}
        code = "from jupyter_book.cli.main import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", code, "build", "."],
            cwd=self.folder,
            env=os.environ | own | plain | variables,
            capture_output=True,
            text=True,
            timeout=180,
        )
        return done.returncode, done.stdout + done.stderr

    def executions(self) -> int:
        """How many times the chapter has been executed."""
        path = self.folder / "book" / "executions.txt"
        return len(path.read_text()) if path.exists() else 0

    def html(self, name: str) -> str:
        return (self.folder / "_build" / "html" / name).read_text("utf8")


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """A book that has been built once."""
    book = Book(tmp_path_factory.mktemp("book"))
    status, output = book.build()
    assert status == 0, output
    return book


def test_numbers_reach_the_page_and_the_notebook(book):
    assert "A share of 0.86." in book.html("book/chapter.html")
    notebook = nbformat.read(book.folder / "_build/html/_sources/book/chapter.ipynb", as_version=4)
    assert "A share of 0.86." in notebook.cells[-1].source
    (printed,) = (o.text for c in notebook.cells for o in c.get("outputs", []) if o.output_type == "stream")
    assert printed == "before\nafter\n"  # two outputs came, with another one between them
    (folded,) = (c.metadata for c in notebook.cells if "remove-input" in c.metadata.get("tags", ()))
    assert folded["jupyter"]["source_hidden"]
    assert 'href="../_sources/book/chapter.ipynb"' in book.html("book/chapter.html")


def test_front_page_leads_to_the_root(book):
    assert 'content="0; url=book/index.html"' in book.html("index.html")


def test_a_damaged_cache_is_told_and_made_again(book):
    before = book.executions()
    (notebook,) = (book.folder / "_build/.jupyter_cache").rglob("executed/*/base.ipynb")
    notebook.write_text(notebook.read_text("utf8")[:100], "utf8")
    status, output = book.build()
    assert status == 0, output
    assert f"the execution cache {notebook.parents[2]} is damaged" in " ".join(output.split())
    assert book.executions() == before + 1


def test_execution_is_repeated_only_when_the_package_changes(book):
    before = book.executions()
    assert book.build()[0] == 0
    assert book.executions() == before

    book.write("companion/answer.py", "def answer():\n    return 5\n")
    status, output = book.build()
    assert status == 0, output
    assert book.executions() == before + 1
    assert "A share of 0.71." in book.html("book/chapter.html")

    book.write("companion/answer.py", PACKAGE["answer.py"])  # undone: the outputs are still there
    book.write("book/_static/book.css", "/* other */")  # a change of the style reaches the site
    assert book.build()[0] == 0
    assert book.executions() == before + 1
    assert "A share of 0.86." in book.html("book/chapter.html")
    assert book.html("_static/book.css") == "/* other */"


WAITING = """\
from pathlib import Path
from time import sleep

Path("{own}.here").touch()
for _ in range(600):
    sleep(0.1 * (not Path("{other}.here").exists()))
assert Path("{other}.here").exists()
with Path("executions.txt").open("a") as file:
    file.write("x")
"""


def test_pages_are_executed_side_by_side_where_that_is_asked_for(book):
    before = book.executions()
    for own, other in (("chapter", "second"), ("second", "chapter")):
        cell = "```{code-cell} ipython3\n" + WAITING.format(own=own, other=other) + "```\n"
        book.write(f"book/{own}.md", HEADER + cell)
    toc = (book.folder / "_toc.yml").read_text("utf8")
    book.write("_toc.yml", f"{toc}  - file: book/second\n")
    try:
        status, output = book.build(BOOK_JOBS="2")
        assert status == 0, output
        assert book.executions() == before + 2
    finally:
        book.write("_toc.yml", toc)
        book.write("book/chapter.md", HEADER + CHAPTER)


@pytest.mark.parametrize(
    ("addition", "complaints"),
    [
        ("```{code-cell} ipython3\n1 / 0\n```", ("ZeroDivisionError", "1 / 0", "chapter.md")),
        ("{glue:text}`nowhere:.1f`, {py:func}`companion.nothing`.", ("nowhere", "companion.nothing")),
    ],
    ids=["failing-cell", "missing-number-and-broken-reference"],
)
def test_faults_fail_every_build_until_they_are_mended(book, addition, complaints):
    book.write("book/chapter.md", f"{HEADER}{CHAPTER}\n{addition}\n")
    try:
        for _ in range(2):
            status, output = book.build()
            assert status != 0, output
            for complaint in complaints:
                assert complaint in output
    finally:
        book.write("book/chapter.md", HEADER + CHAPTER)
