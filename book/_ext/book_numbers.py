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

import json
import math
import re
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from book_sources import CITED, Page, parse
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


@dataclass
class NumberException:
    """A phrase whose numerals are neither produced nor cited, and are right all the same."""

    file: str  # name of the page, or a pattern of names
    phrase: str  # what the page says, with single spaces
    reason: str  # why this is no result typed by hand
    used: bool = False

    def __post_init__(self) -> None:
        if not self.reason.strip():
            raise ExtensionError(f"{EXCEPTIONS.name}: no reason is given for: {self.phrase}")

    def excuses(self, file: str, found: re.Match[str]) -> bool:
        """Whether the phrase has a numeral of a page."""
        phrase = r"\s+".join(map(re.escape, self.phrase.split()))
        for match in re.finditer(phrase, found.string) if fnmatch(file, self.file) else ():
            if match.start() <= found.start() and found.end() <= match.end():
                self.used = True
                return True
        return False


def load_exceptions(path: Path = EXCEPTIONS) -> list[NumberException]:
    """The exceptions, each with a reason."""
    return [NumberException(**entry) for entry in tomllib.loads(path.read_text("utf8")).get("exception", ())]


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
        configs = (json.dumps(config, default=str) for config in load_configs(page))
        numerals = (found[0] for code in [*page.code, *configs] for found in CODE_NUMBER.finditer(code))
        self.numbers = {float(numeral.replace("_", "")) for numeral in numerals}

    def explain(self, text: str, found: re.Match[str]) -> bool:
        """Whether a numeral is a setting."""
        value = number(found[0])
        unit = UNIT_AFTER.match(text, found.end())
        if not unit:
            return value in self.numbers or found[0] in "01"  # the ends of a scale, no and yes
        share = unit[0].endswith(("%", "per cent"))
        return share and any(math.isclose(value / 100, n) for n in self.numbers if n % 1)


def load_configs(page: Page) -> Iterator[Any]:
    """The configs of the experiments and of the recorded runs that a page loads."""
    code = "\n".join(page.code + page.hidden_code)
    for name in sorted(set(re.findall(r'load_run\("([\w-]+)"\)', code))):
        from companion.runs import RunError, load_run

        with suppress(RunError):  # executing the page will say what is wrong with it
            yield load_run(name).config
    for name in sorted(set(re.findall(r'get_experiment\("(\w+)"\)', code))):
        from companion.experiments import get_experiment

        yield get_experiment(name).config("live").model_dump()


def check_page(page: Page, exceptions: Sequence[NumberException] = ()) -> list[str]:
    """A page's results that were typed by hand: where, what is wrong, and what to do."""
    settings, findings = Settings(page), []
    for line, text in page.sentences:
        for pattern in (NUMERAL, WORDS) if CITED not in text else ():
            for found in pattern.finditer(text):
                if pattern is NUMERAL and (is_named(text, found) or settings.explain(text, found)):
                    continue
                if not any(exception.excuses(page.name, found) for exception in exceptions):
                    where = line + text.count("\n", 0, found.start())
                    findings.append(f"{page.name}:{where}: {_message(found)}")
    return findings


def _message(found: re.Match[str]) -> str:
    sentence = " ".join(found.string.translate({0: "…", 1: "…"}).split())
    return (
        f"{' '.join(found[0].split())!r} looks like a result typed by hand in: {sentence!r}. "
        "Hand it over with glue, cite its source in the sentence, or give the phrase and a reason to "
        f"{EXCEPTIONS.name}."
    )


def check_book(paths: Iterable[Path], exceptions: Sequence[NumberException]) -> list[str]:
    """Check pages, and that no exception is without use."""
    pages = (parse(path.name, path.read_text("utf8")) for path in sorted(paths))
    findings = [found for page in pages for found in check_page(page, exceptions)]
    told = f"{{}}: no numeral needs the exception {{!r}} any more; take it from {EXCEPTIONS.name}"
    return findings + [told.format(e.file, e.phrase) for e in exceptions if not e.used]


def book_pages(root: Path) -> list[Path]:
    """All pages with text of their own: the chapters, the index and the reference."""
    return sorted([*root.glob("book/*.md"), *root.glob("book/reference/*.md")])


def _check(app: Sphinx) -> None:
    """Warn, which ends the build with an error, before minutes go into executing."""
    for finding in check_book(book_pages(Path(app.srcdir)), load_exceptions()):
        place, _, message = finding.partition(": ")
        LOGGER.warning(message, location=place)


def setup(app: Sphinx) -> None:
    """Check all pages at the beginning of each build."""
    app.connect("builder-inited", _check, priority=900)
