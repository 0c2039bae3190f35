"""Finds results that were typed by hand: every numeral of the text must be produced, cited, or a definition.

The check reads the MyST source, in which a number from a cell is still a ``{glue:text}`` role and a citation
still a ``{cite:p}``. It looks at headings, paragraphs, lists, tables, captions, alternative texts and
descriptions. A numeral is fine if

* a role wrote it, or code, mathematics, an address or a label holds it;
* its sentence has a citation, or its row of a table, or the table's title or header;
* it is part of a **name** or a **shape**: ResNet-18, CIFAR-10, 3x3, chapter 4, index 0, Python 3.11, 23:59,
  (2026);
* it is a bare 0 or 1, an end of a scale;
* it is a **setting**: the page has it in code or in a diagram that the reader sees, or in the config of an
  experiment or a recorded run that the page loads. With a unit of measurement this holds only for a share
  that is there as a fraction (1 % is ``0.01``): times and factors are measured more often than set;
* ``number_exceptions.toml`` has a phrase with it, and a reason.

Anything else looks like a result. Numbers in words count where they measure ("ninety per cent", "nine of
ten", "more than half"), and settings and names do not excuse them. An exception that excuses nothing is a
fault too.

What it cannot see: a typed number without a unit that code happens to have, and words such as "twice".
"""

import math
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from book_sources import CITED, LIST_ITEM, Page, read_page
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util import logging

EXCEPTIONS = Path(__file__).with_name("number_exceptions.toml")
LOGGER = logging.getLogger(__name__)

NUMERAL = re.compile(r"(?<![\d.,])\d+(?:,\d{3})*(?:\.\d+)?")
CODE_NUMBER = re.compile(r"(?<![\w.])(?:\d[\d_]*(?:\.\d+)?(?:e-?\d+)?|\.\d+)")
UNIT = (
    r"(?:%|per cent|(?:percentage )?points?|times|fold|x\b(?! ?\d)|(?:milli|micro)?seconds?|minutes?|hours?"
    r"|ms|s\b|[KMG]i?B\b|(?:kilo|mega|giga)bytes?|nats?|bits?)"
)
UNIT_AFTER = re.compile(rf"(?:(?:\s|-)*(?:to|and|or|-|–)\s*[\d.,]+)?[\s-]*{UNIT}")
TENS = "twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety"
SMALL = (
    "two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen"
)
WORDS = re.compile(
    rf"\b(?:(?:(?:{TENS})(?:-(?:{SMALL}))?|{SMALL}|eighteen|nineteen|(?:a|one) hundred|half a)\s+"
    r"(?:per cent|percentage points?|times|(?:milli|micro)?seconds?|minutes?|hours?|(?:kilo|mega|giga)bytes?)"
    rf"|(?:{SMALL})\s+(?:out\s+)?of\s+(?:ten|a hundred|a thousand)"
    r"|(?:by|about|nearly|almost|(?:more|less|fewer) than)\s+(?:half|a (?:third|quarter|fifth|tenth)))\b",
    re.IGNORECASE,
)

THING = (
    "chapters?|sections?|tables?|figures?|stages?|layers?|index|rank|seeds?|class|row|version|Python|(?-i:BY)"
)
NAMED_BEFORE = re.compile(rf"(?:[A-Za-z]-?|\d(?: ?[x×] ?| by )|\d:|\b(?:{THING})\s+)\Z", re.IGNORECASE)
NAMED_AFTER = re.compile(r"\.\d|(?: ?[x×] ?| by )\d|:\d\d|[A-Z]\b|-D\b|\s?%\s[^.]{0,24}\bintervals?")
YEAR = re.compile(r"(?:19|20)\d\d\b(?!\s?%)(?:(?<=\(.{4})|(?<=in .{4}))")


@dataclass(frozen=True)
class NumberException:
    """A phrase whose numerals are neither produced nor cited, and are right all the same."""

    file: str  # name of the page, or a pattern of names
    phrase: str  # what the page says, with single spaces
    reason: str  # why this is no result typed by hand


@dataclass(frozen=True)
class Finding:
    """A numeral that looks like a result, or an exception without use."""

    file: str
    line: int  # where it stands, from 1; 0 for an exception
    message: str  # what is wrong, and what to do

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}" if self.line else f"{self.file}: {self.message}"


def load_exceptions(path: Path = EXCEPTIONS) -> list[NumberException]:
    """The exceptions, each with a reason."""
    content = tomllib.loads(path.read_text("utf8")).get("exception", ())
    exceptions = [NumberException(**entry) for entry in content]
    bare = [exception.phrase for exception in exceptions if not exception.reason.strip()]
    if bare:
        raise ExtensionError(f"{path.name}: no reason is given for: {', '.join(bare)}")
    return exceptions


def numbers_in(value: Any) -> Iterator[float]:
    """All numbers of a config, also those in names such as ``resnet-56``."""
    if isinstance(value, Mapping):
        for inner in value.values():
            yield from numbers_in(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from numbers_in(inner)
    elif isinstance(value, str):
        yield from (number(found) for found in re.findall(r"\d+(?:\.\d+)?", value))
    elif isinstance(value, int | float):
        yield float(value)


def number(text: str) -> float:
    """What a numeral means, such as ``16,281``."""
    return float(text.replace(",", ""))


def is_named(text: str, found: re.Match[str]) -> bool:
    """Whether a numeral is part of a name or a shape.

    Example:
        >>> [is_named(text, NUMERAL.search(text)) for text in ("ResNet-18", "kernels of 3x3", "falls to 3 %")]
        [True, True, False]
    """
    if YEAR.match(text, found.start()):
        return True
    return bool(NAMED_BEFORE.search(text[: found.start()]) or NAMED_AFTER.match(text, found.end()))


class Settings:
    """The numbers that a page's code and configs define."""

    def __init__(self, page: Page) -> None:
        numerals = (found[0] for code in page.code for found in CODE_NUMBER.finditer(code))
        self.numbers = {float(numeral.replace("_", "")) for numeral in numerals}
        for config in configs(page):
            self.numbers.update(numbers_in(config))

    def explain(self, text: str, found: re.Match[str]) -> bool:
        """Whether a numeral is a setting."""
        value = number(found[0])
        unit = UNIT_AFTER.match(text, found.end())
        if not unit:
            return value in self.numbers or found[0] in "01"  # the ends of a scale, no and yes
        share = unit[0].endswith(("%", "per cent"))
        return share and any(math.isclose(value / 100, n) for n in self.numbers if n % 1)


def configs(page: Page) -> Iterator[Any]:
    """The configs of the experiments and of the recorded runs that a page loads."""
    code = "\n".join(page.code + page.hidden_code)
    for name in sorted(set(re.findall(r'load_run\("([\w-]+)"\)', code))):
        from companion.runs import RunError, load_run

        with suppress(RunError):  # executing the page will say what is wrong with it
            yield load_run(name).config
    for name in sorted(set(re.findall(r'get_experiment\("(\w+)"\)', code))):
        from companion.experiments import get_experiment

        yield get_experiment(name).config("live").model_dump()


def check_page(
    page: Page, exceptions: Sequence[NumberException] = (), used: set[int] | None = None
) -> list[Finding]:
    """Find a page's results that were typed by hand; ``used`` takes the places of needed exceptions."""
    used = set() if used is None else used
    settings, findings = Settings(page), []
    for passage in page.passages:
        for line, source, text in passage.sentences():
            if CITED in text or passage.cited:
                continue
            listed = LIST_ITEM.match(text)
            for pattern in (NUMERAL, WORDS):
                for found in pattern.finditer(text, listed.end() if listed else 0):
                    if pattern is NUMERAL and (is_named(text, found) or settings.explain(text, found)):
                        continue
                    if _excepted(page.name, source, found, exceptions, used):
                        continue
                    where = line + source.count("\n", 0, found.start())
                    findings.append(Finding(page.name, where, _message(" ".join(found[0].split()), source)))
    return findings


def _excepted(
    file: str, source: str, found: re.Match[str], exceptions: Sequence[NumberException], used: set[int]
) -> bool:
    for place, exception in enumerate(exceptions):
        if not fnmatch(file, exception.file):
            continue
        phrase = r"\s+".join(map(re.escape, exception.phrase.split()))
        for match in re.finditer(phrase, source):
            if match.start() <= found.start() and found.end() <= match.end():
                used.add(place)
                return True
    return False


def _message(numeral: str, source: str) -> str:
    return (
        f"{numeral!r} looks like a result typed by hand in: {' '.join(source.split())!r}. "
        "Hand it over with glue, cite its source in the sentence, or give the phrase and a reason to "
        f"{EXCEPTIONS.name}."
    )


def check_book(paths: Iterable[Path], exceptions: Sequence[NumberException]) -> list[Finding]:
    """Check pages, and that no exception is without use."""
    used: set[int] = set()
    findings = [found for path in sorted(paths) for found in check_page(read_page(path), exceptions, used)]
    unused = (e for place, e in enumerate(exceptions) if place not in used)
    told = f"no numeral needs the exception {{!r}} any more; take it from {EXCEPTIONS.name}"
    return findings + [Finding(e.file, 0, told.format(e.phrase)) for e in unused]


def book_pages(root: Path) -> list[Path]:
    """All pages with text of their own: the chapters, the index and the reference."""
    return sorted([*root.glob("book/*.md"), *root.glob("book/reference/*.md")])


def _check(app: Sphinx) -> None:
    """Warn, which ends the build with an error, before minutes go into executing."""
    places = {path.name: path for path in book_pages(Path(app.srcdir))}
    for finding in check_book(places.values(), load_exceptions()):
        path = places.get(finding.file)
        where = f"{path}:{finding.line}" if path else None
        LOGGER.warning(finding.message if path else str(finding), location=where)


def setup(app: Sphinx) -> dict[str, Any]:
    """Check all pages at the beginning of each build."""
    app.connect("builder-inited", _check, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
