"""``{learning-paths}``: ways through the book by interest, with the time that each chapter's cells took.

Each line of the directive is a path: a name, a colon, and pages in the order in which they are read::

    Images: degradation, blocks, resnet18

The times are those of the last execution, from this build or from the cache.
"""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode

PAGES = "has_learning_paths"


class LearningPathsNode(nodes.General, nodes.Element):
    """Stands for the paths until all pages have been executed."""


def parse_paths(lines: list[str]) -> dict[str, list[str]]:
    """The pages of each path.

    Example:
        >>> parse_paths(["Images: degradation, blocks"])
        {'Images': ['degradation', 'blocks']}
    """
    paths = {}
    for line in filter(str.strip, lines):
        name, colon, pages = line.partition(":")
        if not colon or not pages.strip():
            raise ExtensionError(f"a learning path looks like `Images: blocks, resnet18`, and not {line!r}")
        paths[name.strip()] = [page.strip() for page in pages.split(",")]
    return paths


def duration(seconds: float) -> str:
    """A time as people say it.

    Example:
        >>> duration(41.4), duration(92), duration(240)
        ('41 s', '1 min 32 s', '4 min')
    """
    minutes, rest = divmod(round(seconds), 60)
    parts = ([f"{minutes} min"] if minutes else []) + ([f"{rest} s"] if rest or not minutes else [])
    return " ".join(parts)


class LearningPaths(SphinxDirective):
    """``{learning-paths}``: one path a line."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Leave a place for the paths, whose pages are named relative to this one."""
        paths = parse_paths(list(self.content))
        folder = self.env.docname.rpartition("/")[0]
        named = {name: [f"{folder}/{page}".strip("/") for page in pages] for name, pages in paths.items()}
        pages: set[str] = getattr(self.env, PAGES, set())
        setattr(self.env, PAGES, pages | {self.env.docname})
        return [LearningPathsNode(paths=named)]


def runtime(env: BuildEnvironment, page: str) -> float | None:
    """How many seconds a page's cells took; nothing if they have not been executed."""
    data = env.nb_metadata.get(page, {}).get("exec_data") or {}  # type: ignore[attr-defined]
    return data.get("runtime")


def _entry(app: Sphinx, here: str, page: str) -> nodes.list_item:
    if page not in app.env.titles:
        raise ExtensionError(f"{here}: a learning path leads to {page}, which is no page")
    number = ".".join(map(str, app.env.toc_secnumbers.get(page, {}).get("", ())))
    title = nodes.inline("", f"{number} {app.env.titles[page].astext()}".strip())
    entry = nodes.paragraph("", "", make_refnode(app.builder, here, page, "", title))
    seconds = runtime(app.env, page)
    if seconds is not None:
        entry += nodes.Text(f", {duration(seconds)}")
    return nodes.list_item("", entry)


def _fill(app: Sphinx, doctree: nodes.document, here: str) -> None:
    for place in list(doctree.findall(LearningPathsNode)):
        listing = nodes.definition_list()
        for name, pages in place["paths"].items():
            times = [seconds for page in pages if (seconds := runtime(app.env, page)) is not None]
            term = f"{name}: {duration(sum(times))} of computing" if times else name
            steps = nodes.bullet_list("", *(_entry(app, here, page) for page in pages))
            listing += nodes.definition_list_item("", nodes.term("", term), nodes.definition("", steps))
        place.replace_self(listing)


def _write_again(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """The pages with paths, whose times any other page can change."""
    return sorted(getattr(env, PAGES, set()) & env.found_docs)


def _forget(app: Sphinx, env: BuildEnvironment, page: str) -> None:
    getattr(env, PAGES, set()).discard(page)


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the directive."""
    app.add_node(LearningPathsNode)
    app.add_directive("learning-paths", LearningPaths)
    app.connect("env-purge-doc", _forget)
    app.connect("env-updated", _write_again)
    app.connect("doctree-resolved", _fill)
    return {"version": "1", "env_version": 1, "parallel_read_safe": False, "parallel_write_safe": True}
