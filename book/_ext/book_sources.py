"""Reads a page's MyST source into what a reader reads as text, and what a reader reads as code."""

import re
from dataclasses import dataclass, field

import yaml
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.tree import SyntaxTreeNode
from myst_parser.config.main import MdParserConfig
from myst_parser.parsers.mdit import create_md_parser

SYNTAX = {"amsmath", "attrs_inline", "attrs_block", "colon_fence", "deflist", "dollarmath"}
PARSER = create_md_parser(MdParserConfig(enable_extensions=SYNTAX), RendererHTML)
DIRECTIVE = re.compile(r"(?:\{(?P<name>[\w:-]+)\})?\s*(?P<title>.*)")
TEXT_DIRECTIVES = re.compile(
    r"note|tip|warning|important|admonition|seealso|hint|margin|sidebar|dropdown|figure|table|list-table|epigraph|card"
    r"|glossary|(?:exercise|solution)(?:-start)?"
)
OPTIONS = re.compile(r"---\n((?:.*\n)*?)---\n|(?: *:[\w-]+:.*\n)*")
OPTION = re.compile(r"^ *:([\w-]+): *(.*)$", re.MULTILINE)
DIAGRAM_TEXT = re.compile(r"^\s*acc(?:Title|Descr):(.*)\n", re.MULTILINE)
SENTENCE_END = re.compile(
    r"""(?<!\bal)(?<!\be\.g)(?<!\bi\.e)(?<!\bcf)[.?!:][")]*\s+(?=["(\[]*[A-Z\x00\x01])"""
)
TABLE_LINE, CITATION = re.compile(r"\n\|[-:| ]+\n"), "{cite:"
GLUED, CITED, GONE = "\x00", "\x01", " "


@dataclass
class Page:
    """A page's source, taken apart."""

    name: str  # of its file, ``blocks.md``
    sentences: list[tuple[int, str]] = field(default_factory=list)  # all text, by the line where each begins
    code: list[str] = field(default_factory=list)  # what readers see of cells, other listings and diagrams
    hidden_code: list[str] = field(default_factory=list)  # cells whose source the page does not show

    def add(self, line: int, source: str) -> None:
        """Add a paragraph, an item, a row of a table, a heading or a caption."""
        text, start = "".join(map(_shown, PARSER.parseInline(source)[0].children)), 0
        for end in [*(match.end() for match in SENTENCE_END.finditer(text)), len(text)]:
            self.sentences.append((line + text.count("\n", 0, start), text[start:end]))
            start = end

    def add_options(self, options: object, line: int, source: str, *names: str) -> None:
        """Add the texts of some keys, anywhere in options whose source begins on a line."""
        for key, value in options.items() if isinstance(options, dict) else ():
            if isinstance(value, str) and key.split()[0] in names:
                start = " ".join(value.split()[:4])
                lines = (n for n, text in enumerate(source.splitlines()) if start in " ".join(text.split()))
                self.add(line + next(lines, 0), value)
            else:
                self.add_options(value, line, source, *names)


def _shown(token: Token) -> str:
    """What a reader sees of a piece of text; results and citations are marks, code and formulas are gone."""
    name, content = token.meta.get("name", ""), token.content
    if name.startswith(("glue", "cite")):
        return GLUED if name.startswith("glue") else CITED
    if name:
        numbered = name in ("ref", "numref", "doc", "eq", "download") and "<" not in content
        return GONE if numbered or name == "math" or name[:3] == "py:" else re.sub("<[^>]*>$", "", content)
    if token.type in ("text", "image"):
        return re.sub(r"https?://[^\s)>]+", GONE, content)
    if token.type in ("softbreak", "hardbreak"):
        return "\n"
    return "" if token.tag in ("em", "strong") else GONE


def parse(name: str, source: str) -> Page:
    r"""Take a source apart.

    Example:
        >>> parse("x.md", "# Title\n\nSome *text*, `code`, and {term}`more <term>`.\nEnd.").sentences
        [(1, 'Title'), (3, 'Some text,  , and more .\n'), (4, 'End.')]
    """
    page = Page(name)
    _read(page, SyntaxTreeNode(PARSER.parse(source)), 1)
    return page


def _read(page: Page, tree: SyntaxTreeNode, first: int) -> None:
    """Read a part of a page, whose lines count from line ``first``."""
    for node in tree.children:
        line = first + (node.map or (0,))[0]
        if node.type == "front_matter":
            page.add_options(yaml.safe_load(node.content), line + 1, node.content, "description")
        elif node.type in ("fence", "colon_fence"):
            _fenced(page, node, line)
        elif node.type == "table":
            rows = [row for part in node.children for row in part.children]
            texts = [" | ".join(cell.children[0].content for cell in row.children) for row in rows]
            for row, text in zip(rows, texts, strict=True) if CITATION not in texts[0] else ():
                page.add(first + row.map[0], text)
        elif node.type in ("inline", "html_block"):
            page.add(line, node.content)
        else:
            _read(page, node, first)


def _fenced(page: Page, fence: SyntaxTreeNode, line: int) -> None:
    """Read a directive or a listing that begins on a line."""
    name, title = DIRECTIVE.match(fence.info).groups("")
    head = OPTIONS.match(fence.content)
    options = yaml.safe_load(head[1]) if head[1] else dict(OPTION.findall(head[0]))
    body, below = fence.content[head.end() :], line + 1 + head[0].count("\n")
    if name == "code-cell":
        page.add_options(options, line + 1, head[0], "caption", "alt")
        hidden = re.search("remove-(cell|input)", str(options.get("tags")))
        (page.hidden_code if hidden else page.code).append(body)
    elif name == "mermaid":
        page.code.append(DIAGRAM_TEXT.sub("", body))
        for told in DIAGRAM_TEXT.finditer(body):
            page.add(below + body.count("\n", 0, told.start(1)), told[1])
    elif TEXT_DIRECTIVES.fullmatch(name):
        if name == "table" and CITATION in title + TABLE_LINE.split(body)[0]:
            return  # so is all that stands in it
        page.add(line, "" if name in ("figure", "solution", "solution-start") else title)
        page.add_options(options, line + 1, head[0], "caption", "alt")
        _read(page, SyntaxTreeNode(PARSER.parse(body)), below)
    else:
        page.code.append(fence.content)
