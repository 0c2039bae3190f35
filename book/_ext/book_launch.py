"""A button that opens a chapter in Colab, and the first cell of every notebook, which installs the package.

Both follow from one setting, the repository's address. Colab opens notebooks from branches on GitHub only,
and the chapters are text files; so the workflow puts the site's executed notebooks onto a branch of their
own, before it publishes the pages with the buttons. Without an address, or with one elsewhere, there is no
button.
"""

import os
import re
from typing import Any

import nbformat
from book_plain import fitted
from docutils import nodes
from sphinx.application import Sphinx

BRANCH = "notebooks"
"""Where the workflow puts the notebooks, as they are in the site's ``_sources``."""

GITHUB = re.compile(r"https://github\.com/(?P<name>[\w.-]+/[\w.-]+?)(\.git)?/?")
CELL_ID = "install-companion"

SETUP_CELL = """\
# The numbers in the text are those of the build. Outputs become your own when you run the cells.
{remark}
import importlib.util

if importlib.util.find_spec("companion") is None:
    {install}"""
INSTALLS = """\
# Installs `companion`, the book's package, where it is missing. That takes some minutes.
# If Colab then asks for a restart of the session, restart it and go on below."""
ASKS = "# Says what to do where `companion`, the book's package, is missing."
HOW_TO = (
    "the book's package is missing: run `pip install FOLDER`, "
    "where FOLDER is your copy of the book, the one with pyproject.toml"
)


def colab_link(repository: str, page: str) -> str:
    """Where Colab opens the notebook of a page; ``""`` if the repository is not on GitHub.

    Example:
        >>> colab_link("https://github.com/someone/something", "book/blocks")
        'https://colab.research.google.com/github/someone/something/blob/notebooks/book/blocks.ipynb'
        >>> colab_link("https://example.org/something", "book/blocks")
        ''
    """
    found = GITHUB.fullmatch(repository)
    if not found:
        return ""
    return f"https://colab.research.google.com/github/{found['name']}/blob/{BRANCH}/{page}.ipynb"


def setup_source(repository: str, revision: str) -> str:
    """The first cell of a notebook.

    Example:
        >>> print(setup_source("https://github.com/someone/something", "main"))
        # The numbers in the text are those of the build. Outputs become your own when you run the cells.
        # Installs `companion`, the book's package, where it is missing. That takes some minutes.
        # If Colab then asks for a restart of the session, restart it and go on below.
        import importlib.util
        <BLANKLINE>
        if importlib.util.find_spec("companion") is None:
            %pip install --quiet "companion @ git+https://github.com/someone/something@main"
    """
    if not repository:
        return SETUP_CELL.format(remark=ASKS, install=f'raise ModuleNotFoundError("{HOW_TO}")')
    install = f'%pip install --quiet "companion @ git+{repository}@{revision}"'
    return SETUP_CELL.format(remark=INSTALLS, install=install)


def add_setup_cell(app: Sphinx, notebook: nbformat.NotebookNode) -> None:
    """Put the first cell into a notebook that is about to be written for download."""
    options = app.config.html_theme_options
    revision = os.environ.get("GITHUB_SHA") or options.get("repository_branch") or "main"
    cell = nbformat.v4.new_code_cell(setup_source(options.get("repository_url", ""), revision))
    notebook.cells.insert(0, fitted(notebook, cell, CELL_ID))


def link_button(url: str, **words: str) -> dict[str, str]:
    """A button of the theme; ``words`` are its text, tooltip, icon and label."""
    return {"type": "link", "url": url} | words


def _launch_button(
    app: Sphinx, pagename: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    url = colab_link(app.config.html_theme_options.get("repository_url", ""), pagename)
    if not url or "kernelspec" not in app.env.metadata.get(pagename, {}):
        return
    tooltip = "Open this page as a notebook in Colab"
    colab = link_button(url, text="Colab", tooltip=tooltip, icon="fas fa-rocket", label="launch-colab-button")
    context.setdefault("header_buttons", []).append(colab)


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the button, after the theme's own."""
    app.connect("html-page-context", _launch_button, priority=895)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
