"""What the extension does to finished pages and notebooks."""

from __future__ import annotations

import json

import pytest
from book_pages import check_executed, fill_in, glued_values
from sphinx.errors import ExtensionError


def test_numbers_are_filled_into_downloaded_notebooks():
    values = {"e": "12.34", "word": "'higher'"}
    assert fill_in("{glue:text}`e:.1f` % is {glue:text}`word`", values) == "12.3 % is higher"
    with pytest.raises(KeyError):
        fill_in("{glue:text}`missing`", values)


def test_the_numbers_come_from_the_file_that_the_build_keeps(tmp_path):
    path = tmp_path / "chapter.glue.json"
    assert glued_values(path) == {}
    path.write_text(json.dumps({"e": {"data": {"text/plain": "1.5"}}}))
    assert glued_values(path) == {"e": "1.5"}


@pytest.mark.parametrize(
    "execution", [None, {}, {"succeeded": False}, {"succeeded": False, "error": "KeyError"}]
)
def test_a_notebook_that_did_not_run_ends_the_build(execution):
    with pytest.raises(ExtensionError, match=r"book/x: (its cells were not executed|KeyError)"):
        check_executed("book/x", execution)


def test_a_notebook_that_ran_is_fine():
    check_executed("book/x", {"succeeded": True})
