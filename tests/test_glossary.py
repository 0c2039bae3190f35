"""Each chapter links a term of the glossary at least once where its text uses it."""

import re
from pathlib import Path

import pytest

BOOK = Path(__file__).parents[1] / "book"
CHAPTERS = [path for path in sorted(BOOK.glob("*.md")) if "## Exercises" in path.read_text("utf8")]
GLOSSARY = (BOOK / "reference/glossary.md").read_text("utf8")
ENTRIES = [  # each with the names that it goes by
    [line.lower() for line in entry.splitlines() if not line.startswith(" ")]
    for entry in GLOSSARY.split("```{glossary}\n")[1].split("\n```")[0].split("\n\n")
]

# Words that also mean something else, in nearly every chapter. They may be linked, and need not be.
COMMON = {
    "attention": "also what people pay",
    "block": "blocks of text and of code, too",
    "channel": "stands beside shapes on every page about images, where the second chapter has explained it",
    "confidence": "also said of people",
    "depth": "also an everyday word",
    "head": "also of a list and of a person",
    "projection": "also on any plane or direction",
    "residual": "stands in residual net and residual block, which are terms themselves",
    "scale": "of an axis, of a norm, of a map",
    "stage": "of a plan, of a pipeline",
    "window": "of a building, of time",
}

NO_PROSE = (
    re.compile(r"\A---\n.*?\n---\n", re.DOTALL),
    re.compile(
        r"^(`{3,})\{?(?:code-cell|mermaid|table|math|bibliography|bash|python).*?^\1$",
        re.DOTALL | re.MULTILINE,
    ),
    re.compile(r"^(:{3,})\{table\}.*?^\1$", re.DOTALL | re.MULTILINE),
    re.compile(r"^(?:#|\||:[\w-]+:|\([\w-]+\)=).*$", re.MULTILINE),  # headings, rows, options, labels
    re.compile(r"\$\$.+?\$\$|\$[^$\n]+\$", re.DOTALL),
    re.compile(r"\{[\w:]+\}`[^`]+`"),
    re.compile(r"(`+)(?!`).+?\1"),
)
LINK = re.compile(r"\{term\}`(?:[^`<]*<([^`>]+)>|([^`<]+))`")


def linked_terms(text: str) -> set[str]:
    """The terms, in lower case, that a page's roles lead to."""
    return {" ".join((match[1] or match[2]).split()).lower() for match in LINK.finditer(text)}


def prose(text: str) -> str:
    """What stands before the exercises and is no heading, code, formula, table, caption or role."""
    text = text.split("\n## Exercises")[0]
    for pattern in NO_PROSE:
        text = pattern.sub("\n", text)
    return " ".join(text.split()).lower()


def unlinked_terms(text: str) -> list[str]:
    """The terms whose name stands in a page's prose, alone or as a simple plural, and that it never links."""
    words, linked = prose(text), linked_terms(text)

    def used(name: str) -> bool:
        return re.search(rf"(?<![\w-]){re.escape(name)}s?(?![\w-])", words) is not None

    return [names[0] for names in ENTRIES if any(map(used, names)) and not linked & set(names)]


def test_the_glossary_is_in_order_and_has_no_term_twice():
    first = [names[0] for names in ENTRIES]
    every = [name for names in ENTRIES for name in names]
    assert first == sorted(first, key=lambda name: name.replace("-", " "))
    assert len(every) == len(set(every))
    assert set(COMMON) <= set(every)


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_every_term_of_the_glossary_is_linked_where_a_chapter_uses_it(path):
    missing = [term for term in unlinked_terms(path.read_text("utf8")) if term not in COMMON]
    assert not missing, f"link them with {{term}} where they are used first: {missing}"
