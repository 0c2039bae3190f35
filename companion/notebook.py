"""What chapters call that is neither science nor a plot; it needs nothing of the book's tool chain."""

import ast
import inspect
import os
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from IPython.core.formatters import format_display_data
from IPython.display import Markdown, display

from companion.data.download import STAND_INS
from companion.runs import RecordedRun

_HIDDEN = "application/papermill.record/"


def show_source(*objects: type | Callable[..., Any]) -> Markdown:
    """The source of classes, functions or methods, highlighted; of a function's docstring the first line."""
    parts = []
    for thing in objects:
        source = textwrap.dedent(inspect.getsource(thing)).rstrip()
        (node,) = ast.parse(source).body
        if isinstance(node, ast.FunctionDef) and (told := ast.get_docstring(node)):
            lines, said = source.splitlines(), node.body[0]
            lines[said.lineno - 1 : said.end_lineno] = [f'    """{told.splitlines()[0]}"""']
            source = "\n".join(lines)
        place = thing.__module__ + ("" if thing.__qualname__ == thing.__name__ else f", {thing.__qualname__}")
        parts.append(f"```python\n# {place}\n{source}\n```")
    return Markdown("\n\n".join(parts))  # type: ignore[no-untyped-call]


def glue(name: str | None = None, value: object = None, **more: object) -> None:
    """Hand ``value`` to the text, where ``{glue:text}`name``` shows it, or several: ``glue(error=0.1)``.

    The same output metadata that ``myst_nb.glue`` writes, without needing it. Nothing is printed.
    """
    for each, number in (more if name is None else more | {name: value}).items():
        number = number.item() if isinstance(number, np.generic) else number
        data, metadata = format_display_data(number)  # type: ignore[no-untyped-call]
        metadata["scrapbook"] = {"name": each, "mime_prefix": _HIDDEN}
        hidden = {_HIDDEN + kind: content for kind, content in data.items()}
        display(hidden, raw=True, metadata=metadata)  # type: ignore[no-untyped-call]


def mean_and_spread(values: np.ndarray, digits: int = 2, scale: float = 1.0) -> str:
    """``"mean ± sample standard deviation"`` of (seeds,), or the one value; ``scale=100`` gives per cent.

    Example:
        >>> mean_and_spread(np.array([0.1, 0.2, 0.3]), digits=1, scale=100)
        '20.0 ± 10.0'
    """
    values = np.asarray(values) * scale
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{values.mean():.{digits}f} ± {values.std(ddof=1):.{digits}f}"


def recorded(run: RecordedRun, metric: str, digits: int = 2, scale: float = 1.0) -> str:
    """A metric of a run as mean ± spread over its seeds, and its recorded interval [low, high] if it has one.

    What is equal for all seeds has no spread; the ends of the interval are averaged over the seeds.
    """
    values, ends = run.metric(metric), (f"{metric}_low", f"{metric}_high")
    text = mean_and_spread(values if np.ptp(values) else values[:1], digits, scale)
    if any(end not in result.metrics for result in run.results for end in ends):
        return text
    low, high = (scale * run.metric(end).mean() for end in ends)
    return f"{text} [{low:.{digits}f}, {high:.{digits}f}]"


def recorded_table(
    run: RecordedRun, header: list[str], rows: Mapping[str, Sequence[str]],
    digits: int = 2, scale: float = 1.0,
) -> Markdown:  # fmt: skip
    """The metrics of each row, as :func:`recorded` tells them, and under the table the :func:`provenance`."""
    cells = [[row, *(recorded(run, name, digits, scale) for name in names)] for row, names in rows.items()]
    return Markdown(f"{table(header, cells).data}\n\n{provenance(run).data}")  # type: ignore[no-untyped-call]


def provenance(run: RecordedRun) -> Markdown:
    """Where a recorded run comes from, in one sentence under a table or a figure."""
    seeds = "seed" if len(run.seeds) == 1 else "seeds"
    data = f"{run.data.name} (synthetic)" if run.data.synthetic else run.data.name
    commit = run.commit[:7] if run.commit else "unknown"
    minutes = f"{run.wall_seconds / 60:.0f} minutes of training, " if run.wall_seconds else ""
    return Markdown(  # type: ignore[no-untyped-call]
        f"*Run `{run.stem}`, recorded on {run.finished[:10]}: {data}, {len(run.seeds)} {seeds}, "
        f"{run.hardware}, {run.precision}, {minutes}torch {run.libraries['torch']}, commit {commit}.*"
    )


def table(header: list[str], rows: list[list[str]]) -> Markdown:
    """A table of text, the first column to the left and the others to the right.

    Example:
        >>> print(table(["net", "error"], [["plain-20", "9.5"]]).data)
        | net | error |
        |:--|--:|
        | plain-20 | 9.5 |
    """
    head, *lines = ("| " + " | ".join(line) + " |" for line in [header, *rows])
    rule = "|:--" + "|--:" * (len(header) - 1) + "|"
    return Markdown("\n".join([head, rule, *lines]))  # type: ignore[no-untyped-call]


def claim(condition: bool, sentence: str, *, live: bool = False) -> None:
    """Fail, and with that the build, when a sentence of the text no longer holds.

    A ``live`` one is about what the page itself has trained, which at the scale ``"smoke"`` shows nothing.
    Where generated data stand in for real ones, which the page says, no sentence is held to its numbers.
    """
    excused = STAND_INS or (live and os.environ.get("COMPANION_SCALE") == "smoke")
    if not (condition or excused):
        raise AssertionError(f"the text says that {sentence}, which the numbers do not bear out")
