"""A button that opens a chapter in Colab, and the first cell of every notebook, which installs the package.

Both follow from one setting, the repository's address. Colab opens notebooks from branches on GitHub only,
and the chapters are text files; so the workflow puts the site's executed notebooks, as they are in its
``_sources``, onto a branch ``notebooks``, before it publishes the pages with the buttons. Without an address,
or with one elsewhere, there is no button.
"""

import os
import re
from typing import Any

import nbformat
from sphinx.application import Sphinx

GITHUB = re.compile(r"https://github\.com/([\w.-]+/[\w.-]+?)(?:\.git)?/?")
SETUP_CELL = """\
# The numbers in the text are those of the build. Outputs become your own when you run the cells.
{}
import importlib.util

if importlib.util.find_spec("companion") is None:
    {}"""
INSTALLS = """\
# Installs `companion`, the book's package, where it is missing. That takes some minutes.
# If Colab then asks for a restart of the session, restart it and go on below."""
ASKS = "# Says what to do where `companion`, the book's package, is missing."
HOW_TO = (
    "the book's package is missing: run `pip install FOLDER`, "
    "where FOLDER is your copy of the book, the one with pyproject.toml"
)


def add_setup_cell(app: Sphinx, notebook: nbformat.NotebookNode) -> None:
    """Put the first cell into a notebook that is about to be written for download."""
    options = app.config.html_theme_options
    if repository := options.get("repository_url"):
        revision = os.environ.get("GITHUB_SHA") or options.get("repository_branch") or "main"
        words = INSTALLS, f'%pip install --quiet "companion @ git+{repository}@{revision}"'
    else:
        words = ASKS, f'raise ModuleNotFoundError("{HOW_TO}")'
    notebook.cells.insert(0, nbformat.v4.new_code_cell(SETUP_CELL.format(*words)))


def _offer_notebook(app: Sphinx, pagename: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Have the theme offer the notebook that book_pages writes, and offer it in Colab."""
    if "kernelspec" not in app.env.metadata.get(pagename, {}):
        return
    context["ipynb_source"] = f"{pagename}.ipynb"
    if found := GITHUB.fullmatch(app.config.html_theme_options.get("repository_url", "")):
        url = f"https://colab.research.google.com/github/{found[1]}/blob/notebooks/{pagename}.ipynb"
        button = {"type": "link", "url": url, "text": "Colab", "icon": "fas fa-rocket"}
        words = {"tooltip": "Open this page as a notebook in Colab", "label": "launch-colab-button"}
        context["header_buttons"].append(button | words)


def setup(app: Sphinx) -> None:
    """Connect the buttons, just before the theme makes its own, which has the same priority."""
    app.connect("html-page-context", _offer_notebook, priority=501)
