"""What the modules of the command line share."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence, Sized
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import typer
from rich.console import Console
from rich.markup import escape

from companion.files import StateError, atomic_path

if TYPE_CHECKING:
    from companion.estimators.base import AnomalyDetector

SHARE = 0.2  #: of the normal data, held out for the threshold: training does not see them
WEAK = 0.65  # a PR-AUC hardly better than guessing, which has 0.5
Out = Annotated[Path, typer.Option(help="Where to write the model.")]
Model = Annotated[Path, typer.Option(help="What `companion fit` wrote.")]
Epochs = Annotated[int, typer.Option(min=1, help="Passes over the data.")]
Report = Annotated[Path | None, typer.Option(help="A JSON file for the numbers.")]
Fpr = Annotated[float, typer.Option(min=1e-6, max=0.5, help="The share of normal data that may be flagged.")]
Engine = Annotated[Literal["local", "ray"], typer.Option(help="ray: several --workers in parallel.")]
Workers = Annotated[int, typer.Option(min=1, help="Processes of --engine ray.")]
EXPECTED = (ValueError, RuntimeError, ArithmeticError, OSError, LookupError, TypeError, MemoryError)


@contextmanager
def errors_as_messages() -> Iterator[None]:
    """Show an expected error as one message, and exit with status 1."""
    try:
        yield
    except EXPECTED as error:
        text = str(error) if isinstance(error, EXPECTED[:4]) else f"{type(error).__name__} {error}"
        Console(stderr=True).print(f"[red]error:[/red] {escape(text)}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error


def check_writable(path: Path) -> None:
    """Find out before the work, and not after it, whether a file can be written."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file in it")
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryFile(dir=path.parent):
        pass


def shown_name(path: Path | str, folder: Path | None = None) -> str:
    """How a file is named: relative to ``folder``, and what cannot be printed is escaped."""
    name = Path(path).relative_to(folder).as_posix() if folder is not None else str(path)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def safe_cell(text: str) -> str:
    """Text for a CSV cell; what a spreadsheet would take for a formula gets an apostrophe in front."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def check_enough(what: str, learn: Sized, held: Sized) -> None:
    """Refuse to learn where there is nothing to learn from or no threshold to be had."""
    if len(learn) < 2 or len(held) == 0:
        raise ValueError(f"too few {what}: {len(learn)} to learn from and {len(held)} held out; give more")


def tell_promise(held: int, fpr: float, advice: str = "") -> None:
    """Say, before anything is trained, if so few held-out data cannot promise the rate that was asked for."""
    if held < round(1 / fpr) - 1:
        print(
            f"warning: with {held:,} held out, the lowest rate that can be promised is "
            f"{100 / (held + 1):.2g} %; for {100 * fpr:g} % take {advice}more data "
            f"({round(1 / fpr) - 1:,} have to be held out), or take --fpr {1 / (held + 1):.2g}"
        )


def warn_of_rate(flagged: int, scored: int, fpr: float, what: str) -> None:
    """Warn if clearly more than twice the promised share is flagged, or clearly less than half of it."""
    from scipy.stats import binomtest

    many = flagged > 2 * fpr * scored and binomtest(flagged, scored, fpr, "greater").pvalue < 0.001
    few = flagged < fpr * scored / 2 and binomtest(flagged, scored, fpr, "less").pvalue < 0.001
    reason = "there are many anomalies, or " if many else ""
    if many or few:
        print(
            f"warning: {100 * flagged / scored:.3g} % are flagged, where {100 * fpr:.3g} % are expected "
            f"of {what} like the held-out ones: {reason}the {what} have changed"
        )


def load(path: Path, kinds: Sequence[str]) -> Any:
    """The model in a file, which is one of these of ``companion.estimators``."""
    from companion import estimators

    for kind in kinds[1:]:
        with suppress(StateError):
            return getattr(estimators, kind).load(path)
    return getattr(estimators, kinds[0]).load(path)


def tell_choice(model: Any, faults: str) -> None:
    """Print how well each method told held-out normals from faults, and warn if the best can not."""
    for place, (name, value) in enumerate(sorted(model.compared_.items(), key=lambda item: -item[1])):
        print(f"{name}: PR-AUC {value:.3f} on normals and {faults} faults", "" if place else "(kept)")
    if max(model.compared_.values()) < WEAK:
        print("warning: no method tells them apart; what is flagged may mean nothing")


def calibrate(model: AnomalyDetector, normal: Any, fpr: float, out: Path) -> None:
    """Set a threshold by normal data, or those of the last time; write the model, and tell the promise."""
    model.calibrate(normal, fpr).save(out)
    promise = f"of new normal data it flags at most {100 * fpr:.3g} %, on average"
    print(f"threshold {model.threshold_:.4g}, from {len(model.held_ or []):,} held out: {promise}")
    print(f"written to {out}")


def report(
    labels: np.ndarray, scores: np.ndarray, limit: tuple[float, float], out: Path | None,
    groups: np.ndarray | None = None, **more: float,
) -> None:  # fmt: skip
    """Print how well scores (N,) tell normal data, labels 0, from faults, 1, and write it as JSON, with more.

    Beside areas there are the rates at the threshold, the first of ``limit``; the second is the share of
    normal data that it may flag. What has no score (NaN) is left out. Intervals are over single examples, or
    over ``groups`` (N,) of examples that resemble one another.
    """
    from companion.detection.metrics import Metric, bootstrap, confusion, pr_auc, roc_auc

    (threshold, fpr), known = limit, np.isfinite(scores)
    labels, scores = labels[known], scores[known]
    counts = {"normal": sum(labels == 0), "faulty": sum(labels == 1), "left out": sum(~known)}
    metrics: dict[str, Metric] = {"roc_auc": roc_auc, "pr_auc": pr_auc}
    if groups is not None:
        metrics["tpr"] = lambda faulty, own: float((own[faulty] > threshold).mean())
        metrics["tnr"] = lambda faulty, own: float((own[~faulty] <= threshold).mean())
    repeats = max(100, min(500, 10_000_000 // len(labels)))
    found = confusion(labels, scores, threshold)._asdict()
    for name, metric in metrics.items():
        found[name] = bootstrap(metric, labels, scores, groups=groups, repeats=repeats)
    print(*(f"{count:,} {name}" for name, count in counts.items()), sep=", ", end="; ")
    print(f"threshold {threshold:.4g}, set to flag {100 * fpr:.3g} % of normal data. With 95 % intervals:")
    lines = [f"{name.upper().replace('_', '-')}: {value}" for name, value in found.items()]
    print(*lines, *(f"{name.replace('_', ' ')}: {value:.3g}" for name, value in more.items()), sep="\n")
    if found["roc_auc"].low <= 0.5:
        print("warning: the model separates nothing; guessing may rank the faults as well")
    if out is not None:
        numbers = {name: vars(value) for name, value in found.items()}
        told: dict[str, Any] = {"threshold": threshold, "fpr": fpr, **counts, **numbers, **more}
        with atomic_path(out) as part:
            part.write_text(json.dumps(told, indent=1, default=int) + "\n", "utf8")
