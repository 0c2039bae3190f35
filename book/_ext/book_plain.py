"""Turns the MyST of a chapter into plain Markdown, which JupyterLab and Colab show without an extension.

Chapters are written with roles such as ``{term}`` and directives such as ``{note}``. In the notebooks that
readers download they would stand in the text as they are; so roles become words and links, exercises become
headings, remarks become quotations, and the works that are cited become a list.
"""

import posixpath
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urljoin

import nbformat
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

ROLE = re.compile(r"\{(?P<role>[a-z]+(?::[a-z]+)?)\}`(?P<content>[^`]+)`")
TITLED = re.compile(r"(?P<title>.*\S)\s*<(?P<target>[^<>]+)>", re.DOTALL)
DIRECTIVE = re.compile(
    r"^(?P<fence>`{3,}|:{3,})\{(?P<name>[a-z:-]+)\}[ ]*(?P<title>.*)\n(?P<body>(?:.*\n)*?)(?P=fence)[ ]*$",
    re.MULTILINE,
)
OPTIONS = re.compile(r"\A(?::[\w-]+:.*\n)+")
NAME = re.compile(r"^:name: *(\S+)$", re.MULTILINE)
LABEL = re.compile(r"^\([\w-]+\)=(?:\n|\Z)", re.MULTILINE)
ATTRIBUTES = re.compile(r"(?<=[`\])])\{[.#][^}]*\}")
EDGES = re.compile(
    r"^(?=```\{solution-start\})|(?<=\n:class: dropdown\n```)\n|(?<=\{solution-end\}\n```)\n", re.MULTILINE
)
CHECK = re.compile(r"`(?:exercises\.)?(check\([^`]+\))`")
ANSWER = "from companion.exercises import check\n\n# Write your code here."
REMARKS = ("note", "warning", "tip", "important", "admonition")

Resolve = Callable[[str, str, str], str]
"""From role, title (or ``""``) and target to Markdown."""


def plain_roles(text: str, resolve: Resolve) -> str:
    """``text`` with each role replaced by what ``resolve`` makes of it.

    Example:
        >>> plain_roles("A {term}`branch <branch>`.", lambda role, title, target: f"{title}/{target}")
        'A branch/branch.'
    """

    def replace(match: re.Match[str]) -> str:
        titled = TITLED.fullmatch(match["content"])
        title, target = (titled["title"], titled["target"]) if titled else ("", match["content"])
        return resolve(match["role"], title, target)

    return ROLE.sub(replace, text)


def plain_directives(text: str, works: str = "", number: Callable[[str], str] = str) -> str:
    """``text`` with directives in the form of plain Markdown."""

    def replace(match: re.Match[str]) -> str:
        name, title = match["name"], match["title"].strip()
        body = plain_directives(OPTIONS.sub("", match["body"]), works, number).strip("\n")
        if name == "piece":
            return "*The page on the web has something to play with here.*"
        if name == "mermaid":
            return f"```mermaid\n{body}\n```"
        if name == "dropdown":
            return f"\n<details><summary>{title}</summary>\n\n{body}\n\n</details><br>"
        if name == "exercise-start":
            return f"### Exercise: {title}\n" if title else "### Exercise\n"
        if name == "solution-start":
            return "### A solution\n"
        if name in ("exercise-end", "solution-end", "glue:figure"):  # the figure is an output of its cell
            return ""
        if name == "bibliography":
            return works
        if name in REMARKS:
            head = title or name.capitalize()
            return "\n".join(f"> {line}".rstrip() for line in f"**{head}.** {body}".split("\n"))
        if name == "learning-paths":
            return "\n".join(f"- {line}" for line in body.splitlines())
        title = "" if name == "grid" else title  # the numbers of its columns
        named = NAME.search(match["body"])
        head = f"**{number(named[1])}.** " if named and name == "table" else ""
        return "\n\n".join(filter(None, (f"{head}*{title}*" if title else "", body)))

    return DIRECTIVE.sub(replace, text)


def _cited(env: BuildEnvironment, page: str) -> dict[str, Any]:
    """The works that a page can cite, by key; those of its own list win."""
    domain = env.get_domain("cite")
    found = {}
    for work in sorted(domain.citations, key=lambda work: work.bibliography_key.docname == page):  # type: ignore[attr-defined]
        found[work.key] = work
    return found


def _number(env: BuildEnvironment, target: str) -> str:
    """What a numbered figure or table is called."""
    page, anchor = env.get_domain("std").anonlabels.get(target, ("", ""))[:2]  # type: ignore[attr-defined]
    for kind, word in (("figure", "Fig."), ("table", "Table")):
        number = env.toc_fignumbers.get(page, {}).get(kind, {}).get(anchor)
        if number:
            return f"{word} {'.'.join(map(str, number))}"
    return "the figure"


def resolver(app: Sphinx, page: str, keys: list[str]) -> Resolve:
    """How roles of a page are written; the works that are cited are added to ``keys``."""
    env, works = app.env, _cited(app.env, page)
    folder = page.rpartition("/")[0]

    def cite(target: str, narrative: bool) -> str:
        words = []
        for key in map(str.strip, target.split(",")):
            if key not in keys:
                keys.append(key)
            label = works[key].formatted_entry.label if key in works else key
            words.append(f"{names(key)} [{label}]" if narrative else label)
        return ", ".join(words) if narrative else f"[{', '.join(words)}]"

    def names(key: str) -> str:
        people = works[key].entry.persons.get("author", []) if key in works else []
        last = [" ".join(person.last_names) for person in people]
        return f"{last[0]} and others" if len(last) > 2 else " and ".join(last)

    def resolve(role: str, title: str, target: str) -> str:
        if role.startswith("cite"):
            return cite(target, role == "cite:t")
        if role == "doc":
            name = posixpath.normpath(posixpath.join("/", folder, target)).lstrip("/")
            words = title or (env.titles[name].astext() if name in env.titles else target)
            base = app.config.html_baseurl
            return f"[{words}]({urljoin(base, name + '.html')})" if base else words
        if role == "numref":
            return _number(env, target)
        if role == "ref":
            return title or str(env.get_domain("std").labels.get(target, ["the place"])[-1])  # type: ignore[attr-defined]
        if role.startswith("py:"):
            return f"`{(title or target).lstrip('~').rpartition('.')[2]}`"
        return title or target

    return resolve


def works_cited(app: Sphinx, page: str, keys: list[str]) -> str:
    """The list of works, as Markdown."""
    works = _cited(app.env, page)
    entries = [works[key].formatted_entry for key in keys if key in works]
    lines = (f"[{entry.label}] {entry.text.render_as('markdown')}" for entry in entries)
    return "\n".join(f"- {' '.join(line.split())}" for line in lines)


def plain_markdown(app: Sphinx, page: str, texts: list[str]) -> list[str]:
    """The Markdown cells of a page's notebook, plain."""
    keys: list[str] = []
    resolve = resolver(app, page, keys)
    texts = [plain_roles(ATTRIBUTES.sub("", LABEL.sub("", text)), resolve) for text in texts]
    works = works_cited(app, page, keys)
    return [plain_directives(text, works, lambda name: _number(app.env, name)).strip("\n") for text in texts]


def with_captions(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """The cells of a notebook, each figure followed by its caption, each exercise by a cell for the answer.

    The captions are in the settings of the cells, which only the build of the book reads. The cells of a
    solution have the tag "solution", and JupyterLab folds them under the solution's heading.
    """
    cells: list[nbformat.NotebookNode] = []
    solution = False

    def add(make: Callable[..., nbformat.NotebookNode], source: str, **metadata: Any) -> None:
        metadata |= {"tags": ["solution"]} if solution else {}
        cells.append(make(source, metadata=metadata))

    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for text in EDGES.split(cell.source):
                fold = {}
                if text.startswith("```{solution-start}"):
                    asked = CHECK.search(cells[-1].source)
                    add(nbformat.v4.new_code_cell, ANSWER + (f" Then ask: {asked[1]}" if asked else ""))
                    solution, fold = True, {"jp-MarkdownHeadingCollapsed": True}
                add(nbformat.v4.new_markdown_cell, text, **fold)
                solution = solution and "{solution-end}" not in text
            continue
        cells.append(cell)
        if solution:  # Colab shows it on a click
            cell.metadata["cellView"] = "form"
            cell.metadata.setdefault("tags", []).append("solution")
        figure = cell.metadata.get("mystnb", {}).get("figure", {})
        if figure.get("caption"):
            number = f"{{numref}}`{figure['name']}`" if "name" in figure else "Figure"
            add(nbformat.v4.new_markdown_cell, f"**{number}.** {figure['caption'].strip()}")
    return cells
