"""Model cards in the Hugging Face format, generated from recorded runs.

A card is Mitchell et al. 2019 ("Model Cards for Model Reporting") as Markdown under YAML front matter with a
``model-index``. Its numbers come from the run; what no run can know is a short text for each experiment in
:data:`companion.card_texts.CARDS`.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from companion.card_texts import CARDS, CardText
from companion.notebook import mean_and_spread
from companion.runs import RecordedRun


class CardError(ValueError):
    """A run that no card can be made of; the message says why."""


def model_card(run: RecordedRun) -> str:
    """The model card of a recorded run, as Markdown with front matter.

    Raises:
        CardError: if no text is registered for the run's experiment, or the run lacks a number of its card.

    Example:
        >>> from companion.runs import load_run
        >>> model_card(load_run("degradation-full-cpu"))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        companion.model_cards.CardError: no card for runs of 'degradation'; there are cards for: ...
    """
    if run.experiment not in CARDS:
        raise CardError(f"no card for runs of {run.experiment!r}; there are cards for: {', '.join(CARDS)}")
    text = CARDS[run.experiment]
    try:
        front, evaluation = "\n".join(_yaml(front_matter(run))), _evaluation(run, text)
    except KeyError as error:
        raise CardError(f"the run {run.stem} has no metric {error}; its card needs it") from error
    warning = "**The data were a synthetic stand-in: the numbers say nothing about the real data.**"
    parts = [
        f"---\n{front}\n---",
        f"# {text.title}",
        *([warning] if run.data.synthetic else []),
        f"## Model description\n\n{text.description}",
        f"## Intended use\n\n{text.intended}",
        f"## Out of scope\n\n{text.out_of_scope}",
        f"## Training data\n\n{text.training_data}\n\nTerms of the data: {text.data_licence}.",
        f"## Training procedure\n\n{text.procedure(run.config)}",
        f"## Evaluation\n\n{evaluation}",
        "## Limits and risks\n\n" + "\n".join(f"- {limit}" for limit in text.limits),
        f"## Provenance\n\n{_provenance(run)}",
    ]
    return "\n\n".join(parts) + "\n"


def front_matter(run: RecordedRun) -> dict[str, Any]:
    """The metadata that model hubs read: means over the run's seeds, for the card's model alone.

    Raises:
        KeyError: if the experiment has no card, or the run lacks a metric.
    """
    text = CARDS[run.experiment]
    metrics = [
        {
            "type": name,
            "name": f"{label}, mean of {len(run.seeds)} seeds",
            "value": _mean(run, text.model, name),
        }
        for name, label in text.metrics.items()
    ]
    result = {
        "task": {"type": "other", "name": text.task},
        "dataset": {"type": run.data.name, "name": text.dataset[0], "split": "test"},
        "metrics": metrics,
    }
    return {
        "license": "mit",
        "library_name": "pytorch",
        "tags": list(text.tags) + (["synthetic-data"] if run.data.synthetic else []),
        "datasets": [run.data.name],
        "metrics": list(text.metrics),
        "model-index": [{"name": text.title, "results": [result]}],
    }


def _mean(run: RecordedRun, system: str, metric: str) -> float:
    return round(float(run.metric(f"{system}.{metric}").mean()), 6)


def _yaml(value: Any, indent: int = 0) -> list[str]:
    """Lines of YAML for dicts, lists and scalars; a scalar is written as in JSON, which YAML contains."""
    pad = "  " * indent
    if isinstance(value, dict):
        lines = []
        for key, inner in value.items():
            nested = isinstance(inner, (dict, list))
            lines += (
                [f"{pad}{key}:", *_yaml(inner, indent + 1)]
                if nested
                else [f"{pad}{key}: {json.dumps(inner)}"]
            )
        return lines
    lines = []
    for item in value:
        inner_lines = _yaml(item, indent + 1) if isinstance(item, dict) else [json.dumps(item)]
        lines += [f"{pad}- {inner_lines[0].strip()}", *inner_lines[1:]]
    return lines


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, [":--"] + ["--:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _with_interval(run: RecordedRun, metric: str) -> str:
    """Mean and spread over the seeds, and the bootstrap interval, its ends averaged over the seeds."""
    low, high = (run.metric(f"{metric}_{end}").mean() for end in ("low", "high"))
    values = run.metric(metric)
    if np.ptp(values) == 0:
        return f"{values[0]:.4f} [{low:.4f}, {high:.4f}]"
    return f"{mean_and_spread(values, 4)} [{low:.4f}, {high:.4f}]"


def _rate(run: RecordedRun, metric: str) -> str:
    """Mean and spread of a share in per cent, and its interval where the run has one."""
    text = mean_and_spread(run.metric(metric), 2, 100)
    ends = f"{metric}_low", f"{metric}_high"
    if any(end not in result.metrics for result in run.results for end in ends):
        return text
    low, high = (100 * run.metric(end).mean() for end in ends)
    return f"{text} [{low:.2f}, {high:.2f}]"


def _evaluation(run: RecordedRun, text: CardText) -> str:
    ranking = [
        [label, *(_with_interval(run, f"{system}.{metric}") for metric in text.metrics)]
        for system, label in text.systems.items()
    ]
    operating = []
    for point, label in text.points.items():
        for system, name in text.systems.items():
            rates = (_rate(run, f"{system}.{point}.{rate}") for rate in ("tpr", "tnr"))
            operating.append([f"{label}: {name}", *rates])
    interval = (
        " In brackets a 95 % Wilson interval over the test examples, its ends averaged over the seeds."
        if any("[" in cell for row in operating for cell in row[1:])
        else ""
    )
    return (
        f"On the test split, which chose nothing in this run, over {len(run.seeds)} seeds: mean ± standard "
        "deviation over seeds, and in brackets a 95 % bootstrap interval over the test examples, its ends "
        "averaged over the seeds. A system that draws nothing at random has no spread.\n\n"
        + _table(["system", *text.metrics.values()], ranking)
        + "\n\nOperating points: the threshold was set on validation data, the rates are those on the test "
        f"split, in per cent.{interval}\n\n"
        + _table(["threshold", "anomalies flagged", "normals not flagged"], operating)
    )


def _provenance(run: RecordedRun) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in run.libraries.items())
    facts = {
        "experiment": f"`{run.experiment}`, scale `{run.scale}`, seeds {', '.join(map(str, run.seeds))}",
        "recorded": f"{run.finished}, commit `{run.commit or 'unknown'}`, companion {run.package}",
        "data": f"{run.data.name} from {run.data.source}, SHA-256 `{run.data.digest}`",
        "hardware": f"{run.hardware}, {run.precision}, {run.wall_seconds / 60:.0f} minutes of training "
        "in all",
        "versions": versions,
        "to repeat it": f"`companion run {run.experiment} --scale {run.scale} --seeds {len(run.seeds)}`",
        "this card": f"generated from the recorded run by `companion card {run.stem}`",
    }
    return "\n".join(f"- {name}: {fact}" for name, fact in facts.items())
