"""Finishes the pages: notebook downloads, a check that all cells ran, and accessibility of the theme."""

import importlib
import json
import pkgutil
import re
import tomllib
from pathlib import Path
from typing import Any

import nbformat
from book_cache import cache_of
from book_launch import add_setup_cell
from book_plain import plain_markdown, with_captions
from book_weight import SEARCH, when_built, with_waiting_images
from jupyter_cache import get_cache
from myst_nb.core.utils import coalesce_streams
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

import companion

GLUE_ROLE = re.compile(r"\{glue:text\}`(?P<key>[^`:]+)(?::(?P<format>[^`]*))?`")


def glued_values(path: Path) -> dict[str, str]:
    """What cells handed to the prose, by key, from the file that myst-nb keeps it in."""
    if not path.is_file():
        return {}
    outputs = json.loads(path.read_text("utf8"))
    return {key: output["data"]["text/plain"] for key, output in outputs.items()}


def fill_in(text: str, values: dict[str, str]) -> str:
    """``text`` with each ``{glue:text}`` role replaced by its value.

    Example:
        >>> fill_in("an error of {glue:text}`e:.1f` %", {"e": "12.34"})
        'an error of 12.3 %'
        >>> fill_in("{glue:text}`n:,` rows", {"n": "16281"})
        '16,281 rows'
    """

    def value(match: re.Match[str]) -> str:
        found, form = values[match["key"]], match["format"]
        if not form:
            return found.strip("'\"")
        whole = re.fullmatch(r"[+-]?\d+", found)  # 16281 is written 16,281 and not 16,281.0
        return format(int(found) if whole else float(found), form)

    return GLUE_ROLE.sub(value, text)


def check_executed(docname: str, execution: dict[str, Any] | None) -> None:
    """End the build where a notebook's cells were not executed or did not succeed."""
    if not execution or not execution.get("succeeded"):
        reason = (execution or {}).get("error") or "its cells were not executed"
        raise ExtensionError(f"{docname}: {reason}")


FOLDED = {"hide-input", "remove-input", "hide-cell", "remove-cell"}  # tags of cells


def with_outputs(path: Path, notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook with its outputs as they came, from a cache, and one output a cell for what it prints.

    The notebook that myst-nb leaves has no outputs where only the prose of a page changed; and where it has
    some, what was printed stands in the first stream and in the later ones once more. Progress bars and
    warnings of the machine that built it (stderr) stay away, and cells that the page folds are folded.
    """
    notebook = get_cache(path).merge_match_into_notebook(notebook)[1]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [o for o in coalesce_streams(cell.outputs) if o.get("name") != "stderr"]
            if FOLDED & {*cell.metadata.get("tags", ())}:
                cell.metadata["jupyter"] = {"source_hidden": True}
    return notebook


def _publish_notebooks(app: Sphinx) -> None:
    for docname in sorted(app.env.found_docs):
        path = Path(app.outdir).parent / "jupyter_execute" / f"{docname}.ipynb"  # where myst-nb leaves it
        if not path.is_file() or "kernelspec" not in app.env.metadata.get(docname, {}):
            continue
        notebook = with_outputs(cache_of(app, docname), nbformat.read(path, as_version=4))
        check_executed(docname, app.env.nb_metadata[docname].get("exec_data"))
        values = glued_values(path.with_suffix(".glue.json"))
        code_cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
        for count, cell in enumerate(code_cells, start=1):
            cell.execution_count = count  # which the cache does not keep
        notebook.cells = with_captions(notebook)
        prose = [cell for cell in notebook.cells if cell.cell_type == "markdown"]
        texts = plain_markdown(app, docname, [fill_in(cell.source, values) for cell in prose])
        for cell, text in zip(prose, texts, strict=True):
            cell.source = text
        notebook.cells = [cell for cell in notebook.cells if cell.source.strip()]
        add_setup_cell(app, notebook)
        target = Path(app.outdir) / "_sources" / f"{docname}.ipynb"
        target.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, target)
        kept = [cell for cell in notebook.cells if "solution" not in cell.metadata.get("tags", ())]
        if len(kept) < len(notebook.cells):
            notebook.cells, target = kept, Path(app.outdir).parent / "assignments" / target.name
            target.parent.mkdir(exist_ok=True)
            nbformat.write(notebook, target)


def _scripts_once(app: Sphinx, pagename: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Keep one copy of each inline script, and mermaid's only on pages that have a document."""
    seen: set[str] = set()
    kept = []
    for script in context.get("script_files", []):
        body = getattr(script, "attributes", {}).get("body")
        if body and (body in seen or (doctree is None and "mermaid" in body)):
            continue
        seen.add(body or "")
        kept.append(script)
    context["script_files"][:] = kept


FIXES = [
    (re.compile(fix["pattern"]), fix["replacement"])
    for fix in tomllib.loads(Path(__file__).with_name("page_fixes.toml").read_text("utf8"))["fix"]
]


def _finish_pages(app: Sphinx) -> None:
    for path in Path(app.outdir).rglob("*.html"):
        if "_static" not in path.parts:
            page = with_waiting_images(path.read_text("utf8"), path.parent)
            for pattern, replacement in FIXES if path.name == "search.html" else [*FIXES, (SEARCH, "")]:
                page = pattern.sub(replacement, page)
            path.write_text(page, "utf8")


def _import_package(app: Sphinx) -> None:
    """Import all of ``companion`` before autodoc does.

    Autodoc rewrites the annotations of pydantic's base class, after which no new model can be defined.
    """
    for module in pkgutil.walk_packages(companion.__path__, "companion."):
        importlib.import_module(module.name)


WITH_COLONS: dict[str, list[str]] = {}


def _set_aside(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Keep an attribute's text with a colon from napoleon, which takes what stands before it for a type."""
    if what in ("attribute", "data", "property") and lines and ":" in lines[0]:
        WITH_COLONS[name], lines[:] = lines[:], [""]


def _put_back(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = WITH_COLONS.pop(name, lines)


def setup(app: Sphinx) -> None:
    """Connect the finishing steps."""
    app.connect("builder-inited", _import_package)
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-docstring", _set_aside, priority=400)
    app.connect("autodoc-process-docstring", _put_back, priority=600)
    app.connect("html-page-context", _scripts_once, priority=900)
    when_built(app, _publish_notebooks, priority=800)
    when_built(app, _finish_pages, priority=920)
