"""Chapter 7: counts, forests, neighbours and nets on the same training events, judged on labelled sets."""

import time
from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd

from companion.detection.detectors import NeighborIndex
from companion.detection.event_detectors import EVENT_DETECTORS, ClassRarity, drawn
from companion.detection.metrics import bootstrap, pr_auc, recall_at_fpr, roc_auc, with_ends
from companion.detection.plain_columns import PlainColumns
from companion.detection.rates import rates
from companion.estimators.events import EventDetector
from companion.experiments import event_data
from companion.experiments.base import Config, Context, from_table
from companion.experiments.event_data import PARTS, EventSetsConfig, PreparedEvents, Recipe, train
from companion.objectives.selfsupervised import FamilySurprise, embed
from companion.runs import SeedResult

Scores = dict[str, dict[str, np.ndarray]]  # by detector, then by part: float64 scores of its rows

METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {"pr_auc": pr_auc, "roc_auc": roc_auc}
METRICS |= {f"recall_at_{fpr}": partial(recall_at_fpr, fpr=fpr) for fpr in (0.001, 0.01)}
ALERTS = 20  # a day
KINDS = 8  # the most common kinds of attack of a set have rows of their own


class EventDetectionConfig(Config):
    """What is fitted and how it is judged."""

    data: EventSetsConfig = EventSetsConfig()  #: which events; all detectors of a seed learn from the same
    nets: dict[str, Recipe]  #: by name
    stored: int = 10_000  #: training events that neighbours are looked for among
    repeats: int = 50  #: samples of the bootstrap over incidents; 0 for no intervals
    detector: bool = True  #: whether ``EventDetector`` is fitted, too, with its own net


def simple_scores(events: PreparedEvents, seed: int, result: SeedResult) -> Scores:
    """The detectors that need no net, on plain columns, rates among them, scaled by the training events.

    ``one field`` is the rarity of the field that is best alone on validation; a metric of 1 tells its name.
    """
    frame, entity = events.events.frame, events.events.entity
    if "time" in frame.columns:
        frame = pd.concat([frame, rates(frame, entity)], axis=1)
    columns = PlainColumns(entity=entity).fit(frame.iloc[events.train])
    rows = columns.transform(frame)
    parts, scores = {part: events.events.split[part] for part in PARTS}, Scores()
    for name, make in EVENT_DETECTORS.items():
        if name == "rate" and not rows.rates.shape[1]:
            continue  # a table without times
        detector = make(columns, seed).fit(rows[events.train])
        scores[name] = {part: detector.score(rows[own]) for part, own in parts.items()}
    alone = ClassRarity(columns.cardinalities).fit(rows[events.train])
    costs = {part: alone.costs(rows[own]) for part, own in parts.items()}
    anomalous = events.attacks[parts["validation"]]
    best = int(np.argmax([pr_auc(anomalous, own) for own in costs["validation"].T]))
    result.metrics[f"{events.name}.one field.{columns.coded[best][0].name}"] = 1.0
    scores["one field"] = {part: own[:, best] for part, own in costs.items()}
    if "duration" in events.events.frame.columns:
        slow = robust_z(events)
        scores["slow for its kind"] = {part: slow[own] for part, own in parts.items()}
    return scores


def robust_z(events: PreparedEvents) -> np.ndarray:
    """How much longer each event took than its like: float64 (N,), 0 without a duration.

    The logarithm of the duration minus the median of its entity (numbers in its name are all alike), or of
    all where training has fewer than five of it, over their quartiles' distance.
    """
    took = pd.Series(np.log1p(events.events.frame["duration"].to_numpy(dtype=np.float64, na_value=np.nan)))
    kind = pd.Series(events.entities).astype("str").str.replace(r"\d+", "0", regex=True)
    known, own = took.iloc[events.train], kind.iloc[events.train]
    shares = np.array([0.25, 0.5, 0.75])
    quarters, everyone = known.groupby(own).quantile(shares).unstack(), known.quantile(shares)
    often = quarters[own.value_counts().reindex(quarters.index) >= 5]
    low, middle, high = often.reindex(kind).fillna(everyone).to_numpy().T
    width = high - low + 0.05 * (everyone[0.75] - everyone[0.25])
    with np.errstate(divide="ignore", invalid="ignore"):  # all took alike
        return np.asarray(np.nan_to_num((took.to_numpy() - middle) / width))


def net_scores(
    events: PreparedEvents, config: EventDetectionConfig, seed: int, context: Context, result: SeedResult
) -> Scores:
    """For each net the distance to its nearest neighbours, and its surprise if it can guess fields."""
    parts, scores = {part: events.events.split[part] for part in PARTS}, Scores()
    for name, recipe in config.nets.items():
        net = train(events, recipe, seed, context, f"{events.name}.{name}", result)
        space = partial(embed, net, compute=context.compute)
        stored = events.train[drawn(len(events.train), config.stored, seed)]
        index = NeighborIndex(5).fit(space(*events.tensors(stored)))
        near = {part: index.score(space(*events.tensors(rows))) for part, rows in parts.items()}
        scores[f"{name} neighbours"] = near
        if recipe.objective == "masked":
            judge = FamilySurprise(net, events.features.groups(), context.compute)
            judge.fit(*events.tensors(events.calibration), events.kinds[events.calibration])
            scores[f"{name} surprise"] = {
                part: judge.score(*events.tensors(rows), events.kinds[rows]) for part, rows in parts.items()
            }
    return scores


def judged(events: PreparedEvents, part: str, column: str = "", value: str = "") -> tuple[np.ndarray, ...]:
    """Which of a part's rows are judged, and which of those are anomalies: bool.

    Attacks with another value of ``column`` are not judged, nor are those that only an order betrays.
    """
    labels = events.events.labels.iloc[events.events.split[part]]
    wanted = attack = labels["attack"].notna().to_numpy(dtype=bool)
    if column:
        wanted = attack & (labels[column] == value).to_numpy(dtype=bool)
    elif "shape" in labels:
        wanted = attack & (labels["shape"] != "order").to_numpy(dtype=bool)
    keep = wanted | ~attack
    return keep, wanted[keep]


def at_alerts(events: PreparedEvents, scores: np.ndarray) -> dict[str, float]:
    """What the 20 highest alerts a day are worth on the test part, if it takes a day, or nearly.

    An alert is all that an entity did in half an hour, as high as the highest score in it. ``"found"`` is the
    share of incidents of which an event is as high, ``"right"`` that of alerts with an event of an attack.
    """
    rows, frame = events.events.split["test"], events.events.frame
    clock = frame["time"].to_numpy(dtype=np.int64)[rows] if "time" in frame.columns else np.zeros(len(rows))
    days = float(np.ptp(clock)) / 86_400_000
    if days < 0.9:
        return {}
    slots = pd.Series(events.entities[rows].astype(str)) + (clock // 1_800_000).astype(str)
    table = pd.DataFrame({"score": scores, "attack": events.attacks[rows]}).groupby(slots).max()
    alerts = round(ALERTS * days)
    highest = np.sort(np.append(table["score"].to_numpy(), np.full(alerts, -np.inf)))[::-1]
    flagged = table[table["score"] > highest[alerts]]
    keep, wanted = judged(events, "test")
    seen = pd.Series(scores[keep][wanted] > highest[alerts])
    incidents = events.events.labels["incident"].to_numpy()[rows[keep][wanted]]
    return {
        "found": float(seen.groupby(incidents).any().mean()),
        "right": float(flagged["attack"].mean()) if len(flagged) else 0.0,
    }


def evaluate_scores(events: PreparedEvents, scores: Scores, repeats: int) -> dict[str, float]:
    """All metrics of all detectors of a set; for the intervals whole incidents are resampled.

    ``"<detector>.<part>_<metric>"`` is for all attacks, and of generated ones
    ``"<detector>.<part>_<shape>_<metric>"`` for those of a shape. For validation the two areas only.
    """
    found: dict[str, float] = {}
    labels = events.events.labels.iloc[events.events.split["test"]]
    kinds = labels["attack"].value_counts().index[:KINDS]
    scopes = {"": ("", "")}
    if "shape" in labels:
        scopes |= {f"{shape}_": ("shape", shape) for shape in ("point", "context")}
    for name, parts in scores.items():
        for part, own in parts.items():
            for key, scope in scopes.items():
                keep, wanted = judged(events, part, *scope)
                for metric in list(METRICS)[: 2 if part == "validation" else None] if wanted.any() else ():
                    found[f"{name}.{part}_{key}{metric}"] = METRICS[metric](wanted, own[keep])
        own = parts["test"]
        for kind in kinds if len(kinds) > 1 else ():
            keep, wanted = judged(events, "test", "attack", kind)
            found[f"{name}.test_{kind}_roc_auc"] = roc_auc(wanted, own[keep])
        found |= {f"{name}.test_{key}": value for key, value in at_alerts(events, own).items()}
        if repeats:
            keep, wanted = judged(events, "test")
            incidents = labels["incident"].to_numpy()[keep]
            groups = incidents if len(np.unique(incidents)) < 0.9 * len(incidents) else None
            interval = bootstrap(pr_auc, wanted, own[keep], groups=groups, repeats=repeats)
            found |= with_ends(f"{name}.test_pr_auc", interval)
    for part in PARTS:
        for key, scope in scopes.items():
            found[f"share.{part}_{key}anomalies"] = float(judged(events, part, *scope)[1].mean())
    keep, wanted = judged(events, "test")
    found["share.test_incidents"] = float(labels["incident"][keep][wanted].nunique())
    return found


def run(config: EventDetectionConfig, seed: int, context: Context) -> SeedResult:
    """Fit every detector on the same normal training events; score validation, and the test events once."""
    result = SeedResult(seed=seed)
    for name in config.data.sets:
        events = event_data.prepared(name, config.data, seed)
        scores = net_scores(events, config, seed, context, result)
        clock = time.perf_counter()
        scores |= simple_scores(events, seed, result)
        if config.detector:  # what readers run, fitted on training and calibration events as one stream
            frame, rows = events.events.frame, np.sort(np.concatenate([events.train, events.calibration]))
            detector = EventDetector(columns=events.events.entity, seed=seed)
            detector.fit(frame.iloc[rows], compute=context.compute)
            parts = {part: frame.iloc[events.events.split[part]] for part in PARTS}
            scores["EventDetector"] = {part: detector.decision_function(own) for part, own in parts.items()}
        result.seconds[f"{name}.others"] = round(time.perf_counter() - clock, 2)
        found = evaluate_scores(events, scores, config.repeats)
        result.metrics.update({f"{name}.{key}": round(value, 4) for key, value in found.items()})
    return result


EVENT_DETECTION = from_table("event_detection", EventDetectionConfig, run, event_data.info, float32=True)
