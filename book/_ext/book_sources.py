"""Reads a page's MyST source into what a reader reads as text, and what a reader reads as code."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import yaml

FENCE = re.compile(r"\s*(?P<mark>`{3,}|:{3,}|~{3,})\s*(?:\{(?P<name>[\w:-]+)\})?(?P<rest>.*)$")
TEXT_DIRECTIVES = re.compile(
    r"note|tip|warning|important|admonition|seealso|hint|margin|sidebar|dropdown|figure|table|list-table|epigraph|card"
    r"|glossary|(?:exercise|solution)(?:-start)?"
)
TITLED = re.compile(r"admonition|table|list-table|dropdown|card|exercise(?:-start)?")
HIDDEN = {"remove-cell", "remove-input"}
LIST_ITEM = re.compile(r"\s*(?:[-*]|\d+\.|:)\s+")
OPTION = re.compile(r"\s*:(?P<name>[\w-]+):(?P<value>.*)$")
SENTENCE_END = re.compile(
    r"""(?<!\bal)(?<!\be\.g)(?<!\bi\.e)(?<!\bcf)[.?!:][")*_]*\s+(?=["*_(\[]*[A-Z\x00\x01])"""
)

GLUED, CITED, GONE = "\x00", "\x01", " "
ROLE = re.compile(r"\{(?P<name>[\w:]+)\}`(?P<body>[^`]+)`")
MASKS = (
    (re.compile(r"(`+)(?!`).+?\1", re.DOTALL), GONE),
    (re.compile(r"(?<!\\)\$\$?[^$]+\$\$?"), GONE),
    (re.compile(r"\]\([^)]*\)"), GONE),  # where a link leads
    (re.compile(r"<?https?://[^\s)>]+>?"), GONE),
    (re.compile(r"<!--.*?-->", re.DOTALL), GONE),
    (re.compile(r"^\([\w-]+\)=$"), GONE),
    (re.compile(r"(?<=[\])])\{[^}]*\}|^\{[^}`]*\}$"), GONE),  # attributes
)


@dataclass(frozen=True)
class Passage:
    """A paragraph, an item, a row of a table, a heading, a caption."""

    line: int  # where it begins, from 1
    text: str  # its source, with its line breaks
    cited: bool = False  # whether it belongs to a table whose title or header has a citation

    def masked(self) -> str:
        """The text, as long as before, without markup; roles of results and citations are marks."""

        def blank(match: re.Match[str], mark: str = GONE) -> str:
            return re.sub(r"[^\n]", mark, match[0])

        def role(match: re.Match[str]) -> str:
            name = match["name"]
            if name.startswith("glue"):
                return blank(match, GLUED)
            if name.startswith("cite"):
                return blank(match, CITED)
            if name == "math" or name.startswith("py:"):
                return blank(match)
            shown = re.sub(r"<[^>]*>$", blank, match["body"])
            bare = name in ("ref", "numref", "doc", "eq", "download") and "<" not in match["body"]
            return GONE * (len(name) + 3) + (blank(match)[len(name) + 3 :] if bare else shown + GONE)

        text = ROLE.sub(role, self.text)
        for pattern, mark in MASKS:
            text = pattern.sub(lambda match, mark=mark: blank(match, mark), text)  # type: ignore[misc]
        assert len(text) == len(self.text), (self.text, text)
        return text

    def sentences(self) -> Iterator[tuple[int, str, str]]:
        """Line, source and masked text of each sentence."""
        masked, start = self.masked(), 0
        ends = [match.end() for match in SENTENCE_END.finditer(masked)]
        for end in [*ends, len(masked)]:
            yield self.line + self.text.count("\n", 0, start), self.text[start:end], masked[start:end]
            start = end


@dataclass
class Page:
    """A page's source, taken apart."""

    name: str  # of its file, ``blocks.md``
    passages: list[Passage] = field(default_factory=list)  # all text
    code: list[str] = field(default_factory=list)  # what readers see of cells, other listings and diagrams
    hidden_code: list[str] = field(default_factory=list)  # cells whose source the page does not show


def _strings(options: object, *names: str) -> Iterator[str]:
    """The texts of some keys, anywhere in a cell's options."""
    if isinstance(options, dict):
        for key, value in options.items():
            if isinstance(value, str) and key.split()[0] in names:
                yield value
            else:
                yield from _strings(value, *names)


def _locate(text: str, lines: list[str], first: int) -> Passage:
    """A text that YAML has folded, with the line of its beginning."""
    start = text.split()[:4]
    for place, line in enumerate(lines):
        if " ".join(start) in " ".join(line.split()):
            return Passage(first + place, text)
    return Passage(first, text)


def _options(lines: list[str], first: int, *names: str) -> tuple[list[Passage], int, dict[str, object]]:
    """Texts in a block between two ``---``; how many lines it takes; and what it says."""
    if not lines or lines[0].strip() != "---":
        return [], 0, {}
    end = next(n for n, line in enumerate(lines[1:], 1) if line.strip() == "---")
    options = yaml.safe_load("\n".join(lines[1:end])) or {}
    return [_locate(text, lines[:end], first) for text in _strings(options, *names)], end + 1, options


def _code_cell(page: Page, lines: list[str], first: int) -> None:
    texts, size, options = _options(lines, first, "caption", "alt")
    page.passages += texts
    tags = options.get("tags", [])
    code = []
    for line in lines[size:]:
        if not code and (option := OPTION.match(line)):
            tags = yaml.safe_load(option["value"]) if option["name"] == "tags" else tags
        elif code or line.strip():
            code.append(line)
    (page.hidden_code if HIDDEN & set(tags) else page.code).append("\n".join(code))  # type: ignore[call-overload]


def read_page(path: Path) -> Page:
    """A page's source, taken apart into its text and its code."""
    return parse(path.name, path.read_text("utf8"))


def parse(name: str, source: str) -> Page:
    r"""Take a source apart.

    Example:
        >>> [passage.text for passage in parse("x.md", "# Title\n\nSome *text*.").passages]
        ['# Title', 'Some *text*.']
    """
    page, lines = Page(name), source.splitlines()
    texts, place, _ = _options(lines, 1, "description")
    page.passages += texts
    _blocks(page, lines[place:], place + 1)
    page.passages.sort(key=lambda passage: passage.line)
    return page


def _blocks(page: Page, lines: list[str], first: int) -> None:
    """Read lines of which the first is line ``first`` of the file."""
    gathered: list[str] = []

    def finish(end: int) -> None:
        if any(line.strip() for line in gathered):
            page.passages.append(Passage(first + end - len(gathered), "\n".join(gathered)))
        gathered.clear()

    place = 0
    while place < len(lines):
        line = lines[place]
        fence = FENCE.match(line)
        if fence:
            finish(place)
            close = re.compile(rf"\s*{fence['mark'][0]}{{{len(fence['mark'])},}}\s*$")
            end = next((n for n in range(place + 1, len(lines)) if close.match(lines[n])), len(lines))
            _fenced(page, fence, lines[place + 1 : end], first + place)
            place = end + 1
            continue
        if not line.strip() or line.lstrip().startswith("% "):
            finish(place)
        else:
            if LIST_ITEM.match(line) or line.lstrip().startswith(("#", "|", ">")):
                finish(place)
            gathered.append(line)
            if line.lstrip().startswith("#"):
                finish(place + 1)
        place += 1
    finish(len(lines))


def _fenced(page: Page, fence: re.Match[str], lines: list[str], line: int) -> None:
    """Read what stands in a directive or a listing that begins on ``line``."""
    name, title = fence["name"] or "", fence["rest"].strip()
    if name == "code-cell":
        _code_cell(page, lines, line + 1)
    elif name == "mermaid":
        page.code.append("\n".join(text for text in lines if not text.lstrip().startswith("acc")))
        told = re.compile(r"\s*acc(?:Title|Descr):(.*)")
        found = ((n, told.match(text)) for n, text in enumerate(lines, line + 1))
        page.passages += [Passage(n, match[1]) for n, match in found if match]
    elif TEXT_DIRECTIVES.fullmatch(name):
        start = len(page.passages)
        if title and TITLED.fullmatch(name):
            page.passages.append(Passage(line, title))
        skip, before = 0, len(page.passages)
        while skip < len(lines) and (option := OPTION.match(lines[skip])):
            if option["name"] in ("alt", "caption"):
                page.passages.append(Passage(line + 1 + skip, option["value"]))
            skip += 1
        _blocks(page, lines[skip:], line + 1 + skip)
        if name == "table":
            head = [passage.text for passage in page.passages[start : before + 1]]
            if any("{cite:" in text for text in head):
                page.passages[start:] = [replace(passage, cited=True) for passage in page.passages[start:]]
    else:
        page.code.append("\n".join(lines))
