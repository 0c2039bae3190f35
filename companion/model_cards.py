"""Model cards in the Hugging Face format, made from recorded runs.

Mitchell et al. 2019 ("Model Cards for Model Reporting"). The numbers come from the run, the text from a
template in ``companion/cards``. A run's metrics are called ``"<system>.<metric>"``, with ``_low`` and
``_high`` behind them if they have an interval, and at a threshold ``"<system>.<point>.tpr"`` and ``".tnr"``.
"""

from pathlib import Path
from typing import Any

import yaml

from companion.notebook import recorded, table
from companion.runs import RecordedRun

CARDS = Path(__file__).with_name("cards")
METHOD = """\
On the test split, which chose nothing in this run, over {seeds} seeds: mean ± standard deviation over seeds,
and in brackets a 95 % interval over the test examples, its ends averaged over the seeds. A system that draws
nothing at random has no spread.

{ranking}

Operating points: the threshold was set on validation data, the rates on the test split are in per cent.

{operating}"""
STAND_IN = "**The data were a synthetic stand-in: the numbers say nothing about the real data.**\n\n"


def model_card(run: RecordedRun) -> str:
    """The model card of a recorded run, as Markdown with front matter."""
    path = CARDS / f"{run.experiment}.md"
    if not path.is_file():
        names = ", ".join(sorted(card.stem for card in CARDS.glob("*.md")))
        raise ValueError(f"no card for runs of {run.experiment!r}; there are cards for: {names}")
    _, front, body = path.read_text("utf8").split("---\n", 2)
    about = yaml.safe_load(front)
    try:
        metadata, evaluation = _front_matter(run, about), _evaluation(run, about)
    except KeyError as error:
        raise ValueError(f"the run {run.stem} has no metric {error}; its card needs it") from error
    told = {name: ", ".join(map(str, x)) if isinstance(x, list) else x for name, x in run.config.items()}
    percent = {name: f"{100 * x:g} %" for name, x in run.config.items() if isinstance(x, int | float)}
    return (
        f"---\n{yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)}---\n\n# {about['title']}\n\n"
        + (STAND_IN if run.data.synthetic else "")
        + body.format(**told, percent=percent, evaluation=evaluation)
        + f"\n## Provenance\n\n{_provenance(run)}\n"
    )


def _front_matter(run: RecordedRun, about: dict[str, Any]) -> dict[str, Any]:
    """The metadata that model hubs read: means over the run's seeds, for the card's model alone."""
    metrics = [
        {"type": name, "name": f"{label}, mean of {len(run.seeds)} seeds", "value": round(mean, 6)}
        for name, label in about["metrics"].items()
        for mean in [float(run.metric(f"{about['model']}.{name}").mean())]
    ]
    result = {
        "task": {"type": "other", "name": about["task"]},
        "dataset": {"type": run.data.name, "name": about["dataset"], "split": "test"},
        "metrics": metrics,
    }
    return {
        "license": "mit",
        "language": "en",
        "library_name": "pytorch",
        "tags": about["tags"] + ["synthetic-data"] * run.data.synthetic,
        "datasets": [run.data.name],
        "metrics": list(about["metrics"]),
        "model-index": [{"name": about["title"], "results": [result]}],
    }


def _evaluation(run: RecordedRun, about: dict[str, Any]) -> str:
    metrics, systems = about["metrics"], about["systems"]
    flagged = about.get("rates", {"tpr": "anomalies flagged", "tnr": "normals not flagged"})
    points = [(name, f"{label}: {of}", system)
              for name, label in about["points"].items() for system, of in systems.items()]  # fmt: skip
    points += [(name, f"under stress, {label}", about["model"])
               for name, label in about.get("stress", {}).items()]  # fmt: skip
    ranking = [
        [of, *(recorded(run, f"{system}.{metric}", 4) for metric in metrics)]
        for system, of in systems.items()
    ]
    rates = [[what, *(recorded(run, f"{system}.{point}.{rate}", 2, 100) for rate in flagged)]
             for point, what, system in points]  # fmt: skip
    return METHOD.format(
        seeds=len(run.seeds), ranking=table(["system", *metrics.values()], ranking).data,
        operating=table(["threshold", *flagged.values()], rates).data,
    )  # fmt: skip


def _provenance(run: RecordedRun) -> str:
    facts = {
        "experiment": f"`{run.experiment}`, scale `{run.scale}`, seeds {', '.join(map(str, run.seeds))}",
        "recorded": f"{run.finished}, commit `{run.commit or 'unknown'}`, companion {run.package}",
        "data": f"{run.data.name} from {run.data.source}, SHA-256 `{run.data.digest}`",
        "hardware": f"{run.hardware}, {run.precision}, {run.wall_seconds / 60:.0f} minutes",
        "versions": ", ".join(f"{name} {version}" for name, version in run.libraries.items()),
        "to repeat it": f"`companion run {run.experiment} --scale {run.scale} --seeds {len(run.seeds)}`",
        "this card": f"generated from the recorded run by `companion card {run.stem}`",
    }
    return "\n".join(f"- {name}: {fact}" for name, fact in facts.items())
