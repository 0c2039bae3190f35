"""What the extension does to finished pages and notebooks."""

import pytest
from book_pages import check_executed
from book_plain import plain_directives
from sphinx.errors import ExtensionError


@pytest.mark.parametrize(
    "execution", [None, {}, {"succeeded": False}, {"succeeded": False, "error": "KeyError"}]
)
def test_a_notebook_that_did_not_run_ends_the_build(execution):
    with pytest.raises(ExtensionError, match=r"book/x: (its cells were not executed|KeyError)"):
        check_executed("book/x", execution)


@pytest.mark.parametrize(
    ("myst", "plain"),
    [
        (":::{note}\nOne thing.\nAnd another.\n:::", "> **Note.** One thing.\n> And another."),
        (":::{warning} Mind\n:class: x\nA step.\n:::", "> **Mind.** A step."),
        ("```{exercise-start} Count\n:label: ex\n```\nEasy.", "### Exercise: Count\n\nEasy."),
        (
            "```{solution-start} ex\n:class: dropdown\n```\nSo.\n```{solution-end}\n```",
            "### A solution\n\nSo.\n",
        ),
        ("```{mermaid}\nflowchart TD\n  a --> b\n```", "```mermaid\nflowchart TD\n  a --> b\n```"),
        (
            ":::{table} Errors.\n:name: t\n\n| a |\n|:--|\n| 1 |\n:::",
            "**Table t.** *Errors.*\n\n| a |\n|:--|\n| 1 |",
        ),
        ("```{bibliography}\n:filter: x\n```", "- [A] A work."),
        (
            "````{grid} 1 2\n:gutter: 3\n\n```{grid-item-card} One\n:link: a\n\nIt is so.\n```\n````\n",
            "*One*\n\nIt is so.\n",
        ),
        ("````{note}\nSo.\n\n```{glue:figure} bars\n:alt: Bars.\n```\n````", "> **Note.** So."),
        ("```python\nx = {1}\n```", "```python\nx = {1}\n```"),
    ],
)
def test_directives_become_plain_markdown(myst, plain):
    assert plain_directives(myst, "- [A] A work.", "Table {}".format) == plain
