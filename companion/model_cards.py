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
STAND_IN = "\n**The data were a synthetic stand-in: the numbers say nothing about the real data.**\n"


def model_card(run: RecordedRun) -> str:
    """The model card of a recorded run, as Markdown with front matter."""
    path = CARDS / f"{run.experiment}.md"
    if not path.is_file():
        names = ", ".join(sorted(card.stem for card in CARDS.glob("*.md")))
        raise ValueError(f"no card for runs of {run.experiment!r}; there are cards for: {names}")
    _, front, body = path.read_text("utf8").split("---\n", 2)
    about = yaml.safe_load(front)
    hub = about["hub"]  # what model hubs read: means over the run's seeds, for the card's model alone
    hub["tags"] += ["synthetic-data"] * run.data.synthetic
    hub["model-index"][0]["results"][0]["metrics"] = [
        {"type": name, "name": f"{label}, mean of {len(run.seeds)} seeds", "value": round(mean, 6)}
        for name, label in about["metrics"].items()
        for mean in [float(run.metric(f"{about['model']}.{name}").mean())]
    ]
    told = {name: ", ".join(map(str, x)) if isinstance(x, list) else x for name, x in run.config.items()}
    told["percent"] = {name: f"{100 * x:g} %" for name, x in run.config.items() if isinstance(x, int | float)}
    told |= {"run": run, "seeds": ", ".join(map(str, run.seeds)), "count": len(run.seeds)}
    told["versions"] = ", ".join(f"{name} {version}" for name, version in run.libraries.items())
    told["stand_in"] = STAND_IN * run.data.synthetic
    front = yaml.safe_dump(hub, sort_keys=False, allow_unicode=True)
    return f"---\n{front}---\n\n{body.format(**told, **_tables(run, about))}"


def _tables(run: RecordedRun, about: dict[str, Any]) -> dict[str, str]:
    metrics, systems = about["metrics"], about["systems"]
    flagged = about.get("rates", {"tpr": "anomalies flagged", "tnr": "normals not flagged"})
    points = [(name, f"{label}: {of}", system)
              for name, label in about["points"].items() for system, of in systems.items()]  # fmt: skip
    points += [(name, f"under stress, {label}", about["model"])
               for name, label in about.get("stress", {}).items()]  # fmt: skip
    ranking = [[of, *(recorded(run, f"{system}.{metric}", 4) for metric in metrics)]
               for system, of in systems.items()]  # fmt: skip
    rates = [[what, *(recorded(run, f"{system}.{point}.{rate}", 2, 100) for rate in flagged)]
             for point, what, system in points]  # fmt: skip
    head = ["threshold", *flagged.values()]
    return {"ranking": table(["system", *metrics.values()], ranking).data, "rates": table(head, rates).data}
