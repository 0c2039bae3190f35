"""Model cards in the Hugging Face format, generated from recorded runs.

A card is Mitchell et al. 2019 ("Model Cards for Model Reporting") as Markdown under YAML front matter with a
``model-index``. Its numbers come from the run; what no run can know is a short text for each experiment in
:data:`CARDS`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from companion.chapter import mean_and_spread
from companion.runs import RecordedRun


class CardError(ValueError):
    """A run that no card can be made of; the message says why."""


@dataclass(frozen=True)
class CardText:
    """What a card says besides the numbers of a run.

    Metrics of a run are called ``"<system>.<metric>"``, with ``_low`` and ``_high`` behind them where they
    have an interval, and at a threshold ``"<system>.<point>.tpr"`` and ``".tnr"``.

    Attributes:
        title: of the model.
        task: what it does, as the ``model-index`` names it.
        tags: of the front matter.
        dataset: name and, for people, a description of the data.
        data_licence: what is known of the data's terms.
        model: the system that the card is about.
        systems: how all systems of the table are called, the model's included.
        metrics: how the metrics of the table are called.
        points: how the operating points are called.
        description: one or more paragraphs, as the texts below.
        intended: what it is for.
        out_of_scope: what it is not for.
        training_data: of what it learned.
        procedure: from the run's config, how it learned.
        limits: one risk each.
    """

    title: str
    task: str
    tags: tuple[str, ...]
    dataset: tuple[str, str]
    data_licence: str
    model: str
    systems: Mapping[str, str]
    metrics: Mapping[str, str]
    points: Mapping[str, str]
    description: str
    intended: str
    out_of_scope: str
    training_data: str
    procedure: Callable[[Mapping[str, Any]], str]
    limits: tuple[str, ...]


def model_card(run: RecordedRun) -> str:
    """The model card of a recorded run, as Markdown with front matter.

    Raises:
        CardError: if no text is registered for the run's experiment, or the run lacks a number of its card.

    Example:
        >>> from companion.runs import load_run
        >>> model_card(load_run("degradation-full-cpu"))
        Traceback (most recent call last):
        companion.card.CardError: there is no card for runs of 'degradation'; there are cards for: waveforms
    """
    if run.experiment not in CARDS:
        raise CardError(
            f"there is no card for runs of {run.experiment!r}; there are cards for: {', '.join(CARDS)}"
        )
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


def _evaluation(run: RecordedRun, text: CardText) -> str:
    ranking = [
        [label, *(_with_interval(run, f"{system}.{metric}") for metric in text.metrics)]
        for system, label in text.systems.items()
    ]
    operating = []
    for point, label in text.points.items():
        for system, name in text.systems.items():
            rates = (run.metric(f"{system}.{point}.{rate}") for rate in ("tpr", "tnr"))
            operating.append([f"{label}: {name}", *(mean_and_spread(rate, 2, 100) for rate in rates)])
    return (
        f"On the test split, which chose nothing in this run, over {len(run.seeds)} seeds: mean ± standard "
        "deviation over seeds, and in brackets a 95 % bootstrap interval over the test examples, its ends "
        "averaged over the seeds. A system that draws nothing at random has no spread.\n\n"
        + _table(["system", *text.metrics.values()], ranking)
        + "\n\nOperating points: the threshold was set on validation data, the rates are those on the test "
        "split, in per cent.\n\n"
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


# ---------------------------------------------------------------- the texts, one for each experiment


def _waveforms_procedure(config: Mapping[str, Any]) -> str:
    widths = ", ".join(map(str, config["bottlenecks"]))
    return (
        f"Each window gets mean 0 and standard deviation 1. The net has {config['width']} channels "
        "behind its first "
        f"convolution and learns for {config['epochs']} epochs with Adam, a learning rate of 0.001 that "
        "falls to "
        f"0 as a cosine, and the {config['loss'].upper()} loss. Noise with a standard deviation of "
        f"{config['jitter']:g} is added to the input, and the target is without it. Latent widths of "
        f"{widths} "
        f"were trained, {config['members']} nets of each with different seeds, whose scores are "
        "averaged. The "
        "width with the best ROC-AUC on validation was taken. The score is the mean "
        f"{'squared' if config['score_norm'] == 'l2' else 'absolute'} residual.\n\n"
        f"Validation holds {config['validation_normals']} normal beats and the 208 beats of other "
        "classes of the "
        "official training file. So known anomalies chose the width; where none are known, choose with "
        "something else, and expect less."
    )


CARDS: dict[str, CardText] = {
    "waveforms": CardText(
        title="Residual autoencoder for heartbeats (ResNetAE)",
        task="Anomaly detection in fixed-length waveforms",
        tags=("anomaly-detection", "time-series", "autoencoder", "residual-network", "ecg"),
        dataset=("ECG5000", "heartbeats of one patient"),
        data_licence="none stated; cite the UCR archive and PhysioNet (BIDMC record chf07)",
        model="ae",
        systems={
            "ae": "residual autoencoder",
            "mean": "distance to the mean beat",
            "pca": "PCA",
            "knn": "nearest neighbours",
        },
        metrics={"roc_auc": "ROC-AUC", "pr_auc": "PR-AUC"},
        points={"fpr_0.01": "1 % false positives", "fpr_0.001": "0.1 % false positives"},
        description=(
            "A one-dimensional residual encoder, a latent vector and a mirrored decoder. It learns to "
            "reconstruct "
            "normal windows; what it reconstructs badly is flagged. The code is "
            "`companion.waveforms.ResNetAE`."
        ),
        intended=(
            "Teaching, and as a starting point for detectors of unusual windows in signals of one's own, "
            "fitted to one's own normal data, beside the simple detectors in the table below."
        ),
        out_of_scope=(
            "Diagnosis or monitoring of people, or any medical use: the beats are those of one patient. "
            "Other "
            "patients, electrodes, sampling rates or machines without fitting and calibrating again. Telling "
            "kinds of anomalies apart."
        ),
        training_data=(
            "ECG5000 (Dau et al. 2019): 5,000 heartbeats of one patient with severe congestive heart "
            "failure, each "
            "resampled to 140 samples, in five classes that were assigned automatically. The 292 normal "
            "beats of the "
            "official training file are for training; the test split is the official test file without the "
            "normal beats that were moved to validation."
        ),
        procedure=_waveforms_procedure,
        limits=(
            "One patient: the intervals say how sure the numbers are for this patient's beats, and nothing "
            "about other people.",
            "Simple detectors come close or are ahead: see the table before you choose a net.",
            "While the recipe was made, test scores of an earlier one were seen, before its loss was "
            "changed. The change was decided on validation, but the test split is not wholly untouched.",
            "One net alone varies much over seeds, therefore the scores of several are averaged.",
            "With a wide latent vector the net may reconstruct anomalies, too, which then pass unseen.",
            "Each window is standardised by itself, so a change of offset or amplitude alone is invisible.",
            "An event that is short beside the window hardly moves its mean residual.",
            "A threshold holds for the deployment that it was set in. Set it again after any change of "
            "sensor, gain or population, and watch the rate of false positives.",
        ),
    )
}
"""By experiment. Another experiment gets a card by adding its text here."""
