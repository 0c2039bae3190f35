"""Results that were typed by hand are found, and nothing else is."""

import textwrap
from pathlib import Path
from types import SimpleNamespace

import book_numbers
import pytest
from book_numbers import NumberException, book_pages, check_book, check_page, load_exceptions
from book_sources import parse
from sphinx.errors import ExtensionError

ROOT = Path(__file__).parents[2]


def numerals(source: str, *exceptions: NumberException) -> list[str]:
    """The numerals that are found in a page."""
    found = check_page(parse("page.md", textwrap.dedent(source)), exceptions)
    return [finding.split("'")[1] for finding in found]


CELL = """\
```{{code-cell}} ipython3
---
mystnb:
  figure:
    caption: {caption}
  image:
    alt: >-
      {alt}
tags: [{tags}]
---
{code}
```
"""


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The error falls to 7.3 %.", ["7.3"]),
        ("# A net with 93 % accuracy", ["93"]),
        ("- It took 41 minutes.", ["41"]),
        ("1. Nothing here.\n2. Here 35 nets.", ["35"]),
        ("| net | error |\n|:--|--:|\n| plain | 28.54 |", ["28.54"]),
        (":::{note}\nIt has 11,173,962 weights.\n:::", ["11,173,962"]),
        ("```{exercise-start} 17 nets?\n:label: ex-5\n```\nOr 18?\n```{exercise-end}\n```", ["17", "18"]),
        ("It is right in ninety-five per cent of all cases.", ["ninety-five per cent"]),
        ("Nine of ten rows are empty. It takes eighteen times as long.", ["Nine of ten", "eighteen times"]),
        ("More than half of them changed.", ["More than half"]),
        ("Its author {cite:p}`he2016deep` was right. Ours reaches 7.3 %.", ["7.3"]),
        ("---\nmyst:\n  html_meta:\n    \"description lang=en\": >-\n      Reach 94 %.\n---\nText.", ["94"]),
    ],
)  # fmt: skip
def test_a_typed_result_is_found_wherever_it_stands(text, found):
    assert numerals(text) == found


@pytest.mark.parametrize(
    "text",
    [
        "The error falls to {glue:text}`error:.1f` %, see {numref}`fig-2`.",
        "He and others {cite:p}`he2016deep` report 7.51 %.",
        "| net | error {cite:p}`he2016deep` |\n|:--|--:|\n| plain | {glue:text}`x` |",
        ":::{table} Of {cite:p}`he2016deep`.\n:name: tab-1\n\n| a | b |\n|:--|--:|\n| plain | 28.54 |\n:::",
        "The code `x[17]`, the formula $6n + 2$, and a [link](https://example.org/17).",
        "(sec-17)=\n## ResNet-18 on CIFAR-10 in bfloat16, of 3x3 and 7 x 7 and 48 by 30 pixels",
        "{doc}`Chapter 2 <blocks>` and figure 6 give index 5 to Python 3.11 and OCSF 1.8.0 at 23:59 (2026).",
        "From 0 to 1, with 95 % {term}`bootstrap` intervals.",
        "Two nets, one of ten layers, train half as long.",
        "1. One\n2. Two",
        "```bash\nrun --seeds 17\n```",
        "<!-- 17 -->",
    ],
)
def test_what_is_produced_cited_or_a_name_is_not(text):
    assert numerals(text) == []


def test_captions_and_alternative_texts_are_read():
    cell = CELL.format(caption="Error of 17 nets.", alt="A line at 23 %.", tags="hide-input", code="plot()")
    assert numerals(cell) == ["17", "23"]


@pytest.mark.parametrize(
    ("tags", "found"), [("hide-input", []), ("remove-input", ["96"]), ("remove-cell", ["96"])]
)
def test_a_setting_in_code_that_the_reader_sees_is_a_definition(tags, found):
    cell = CELL.format(caption="A figure.", alt="A line.", tags=tags, code="batch_size = 96")
    assert numerals(f"{cell}\nWe take batches of 96.") == found


def test_code_excuses_no_measurement():
    cell = "```{code-cell} ipython3\nlimits = (30, 0.01, 1_500)\n```\n"
    assert numerals(f"{cell}\nAt 1 % false positives, of 1,500 beats, 30 were found.") == []
    text = "It took 30 seconds, 30 to 40 minutes, and finds 30 %."
    assert numerals(f"{cell}\n{text}") == ["30", "30", "40", "30"]


def test_the_config_of_a_recorded_run_defines():
    cell = '```{code-cell} ipython3\n:tags: [remove-cell]\nrun = load_run("waveforms-full-cpu")\n```\n'
    assert numerals(f"{cell}\nWe resample 1,000 times, with 128 numbers.") == ["1,000"]


def test_a_message_says_where_and_what_to_do(tmp_path):
    (tmp_path / "page.md").write_text("# Title\n\nA line.\nThe error is\n7.3 % here.\n")
    (finding,) = check_book([tmp_path / "page.md"], [])
    assert finding.startswith(
        "page.md:5: '7.3' looks like a result typed by hand in: 'The error is 7.3 % here.'"
    )
    for advice in ("glue", "cite", "number_exceptions.toml"):
        assert advice in finding


def test_an_exception_excuses_its_phrase_and_no_other():
    exception = NumberException("page.md", "an example with 9 %", "an example")
    assert numerals("This is an example\nwith 9 %.", exception) == []
    assert numerals("This is another with 9 %.", exception) == ["9"]


def test_an_exception_without_use_or_reason_is_an_error(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("No numerals.\n")
    exception = NumberException("*.md", "an example with 9 %", "an example")
    (unused,) = check_book([page], [exception])
    assert "an example with 9 %" in unused
    assert "take it from number_exceptions.toml" in unused
    path = tmp_path / "list.toml"
    path.write_text('[[exception]]\nfile = "a.md"\nphrase = "9 %"\nreason = " "\n')
    with pytest.raises(ExtensionError, match="9 %"):
        load_exceptions(path)


def test_no_result_in_the_book_was_typed_by_hand():
    assert check_book(book_pages(ROOT), load_exceptions()) == []


def test_the_build_is_told(monkeypatch, tmp_path):
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "page.md").write_text("It is 9 %.\n")
    told = []
    monkeypatch.setattr(book_numbers.LOGGER, "warning", lambda message, location: told.append(location))
    monkeypatch.setattr(book_numbers, "load_exceptions", list)
    book_numbers._check(SimpleNamespace(srcdir=tmp_path))
    assert told == ["page.md:1"]
