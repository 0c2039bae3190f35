"""Chapter 7: every detector on raw features and on learned embeddings."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import LocalOutlierFactor

from companion.detection.detectors import NeighborIndex, anomaly_score
from companion.detection.metrics import bootstrap, roc_auc
from companion.detection.rows import EntityHistory, EntityRarity, FamilySurprise, FieldRarity
from companion.experiments import self_supervised
from companion.experiments.base import Config, Context, Experiment, with_ends
from companion.experiments.event_data import (
    METRICS,
    EventDataConfig,
    PreparedEvents,
    generated_info,
    positives,
    prepared,
    rank,
    shapes_of,
    web_info,
)
from companion.experiments.self_supervised import (
    SMOKE_DATA,
    SMOKE_NET,
    ObjectiveName,
    PretrainConfig,
    one_hot,
    train,
    vectors,
)
from companion.models.masked_resnet import SelfSupervisedResNet
from companion.objectives.selfsupervised import nll
from companion.runs import SeedResult

Scores = dict[str, dict[str, np.ndarray]]  # by detector, then by part: float64 scores of its rows
PARTS = ("validation", "test")


class EventDetectionConfig(Config):
    """What is fitted and how it is judged."""

    data: EventDataConfig = EventDataConfig()  #: which events
    net: PretrainConfig = PretrainConfig()  #: the nets and their recipe; the objective is set from outside
    objectives: tuple[ObjectiveName, ...] = self_supervised.OBJECTIVES  #: the nets that are trained
    reference: int = 20_000  #: normal training events that detectors for vectors learn from
    factor_reference: int = 10_000  #: at most so many for the local outlier factor
    repeats: int = 50  #: samples of the bootstrap


def fit_lof(known: np.ndarray, most: int, seed: int) -> LocalOutlierFactor:
    """A local outlier factor of at most so many of the vectors, drawn at random, for the fit takes long."""
    drawn = np.sort(np.random.default_rng(seed).choice(len(known), min(most, len(known)), replace=False))
    return LocalOutlierFactor(n_neighbors=20, novelty=True).fit(known[drawn])


def evaluate_detectors(events: PreparedEvents, scores: Scores, repeats: int) -> dict[str, float]:
    """All metrics of all detectors; for the intervals whole sessions, and so whole incidents, are resampled.

    Returns:
        ``"<detector>.<part>_<shape>_<metric>"``; for the two areas on the test part also ``_low`` and
        ``_high``; and ``"<detector>.test_<attack>"``, the ROC-AUC for one kind of attack.
    """
    found: dict[str, float] = {}
    attacks = events.labels.loc[events.labels["shape"] != "order", "attack"].dropna().unique()
    sessions = events.labels["session"].to_numpy()
    for name, parts in scores.items():
        for part, own in parts.items():
            rows = getattr(events, part)
            found |= {f"{name}.{part}_{key}": value for key, value in rank(events, rows, own).items()}
        rows, own = events.test, parts["test"]
        for shape in shapes_of(events):
            judged, wanted = positives(events, rows, "shape", shape)
            for key in ("roc_auc", "pr_auc") if repeats and wanted.any() else ():
                groups = sessions[rows][judged]
                got = bootstrap(METRICS[key], wanted, own[judged], groups=groups, repeats=repeats)
                found |= with_ends(f"{name}.test_{shape}_{key}", got)
        for attack in attacks:
            judged, wanted = positives(events, rows, "attack", attack)
            if wanted.any():
                found[f"{name}.test_{attack}"] = roc_auc(wanted, own[judged])
    return found


def raw_scores(
    events: PreparedEvents, config: EventDetectionConfig, seed: int, parts_to_score: Sequence[str] = PARTS
) -> Scores:
    """Detectors that know the fields only, and no net."""
    parts = {part: getattr(events, part) for part in parts_to_score}
    reference = events.sample(events.train, config.reference, seed)
    rarity = FieldRarity(events.cardinalities).fit(*events.arrays(events.train))
    personal = EntityRarity(events.cardinalities)
    personal.fit(events.arrays(events.train)[1], events.entities[events.train])
    scores: Scores = {"rarity": {}, "entity_rarity": {}}
    for part, rows in parts.items():
        numbers, categories = events.arrays(rows)
        scores["rarity"][part] = rarity.score(numbers, categories)
        scores["entity_rarity"][part] = personal.score(categories, events.entities[rows])
    costs = {part: rarity.transform(*events.arrays(rows)) for part, rows in parts.items()}
    known = rarity.transform(*events.arrays(reference))
    scores |= vector_scores("rarity", known, costs, config, seed)
    known, *hot = one_hot(events, reference, *parts.values())
    spaces = dict(zip(parts, hot, strict=True))
    scores |= vector_scores("one_hot", known, spaces, config, seed)
    own = history_scores(events, one_hot(events, events.train)[0], spaces, seed)
    return scores | {"one_hot-history": own}


def history_scores(
    events: PreparedEvents, known: np.ndarray, asked: dict[str, np.ndarray], seed: int
) -> dict[str, np.ndarray]:
    """How far events of each part are from what the same entity did in training, ``known``."""
    history = EntityHistory(seed=seed).fit(known, events.entities[events.train])
    return {part: history.score(own, events.entities[getattr(events, part)]) for part, own in asked.items()}


def vector_scores(
    name: str, known: np.ndarray, asked: dict[str, np.ndarray], config: EventDetectionConfig, seed: int
) -> Scores:
    """Every detector for vectors in one space: ``"<name>-<detector>"``."""
    index = NeighborIndex(5).fit(known)
    models = {
        "lof": fit_lof(known, config.factor_reference, seed),
        "forest": IsolationForest(n_estimators=200, random_state=seed).fit(known),
        "subspace": PCA(0.95, svd_solver="full").fit(known),
    }
    scores: Scores = {f"{name}-knn": {part: index.score(own) for part, own in asked.items()}}
    for kind, model in models.items():
        scores[f"{name}-{kind}"] = {part: anomaly_score(model, own) for part, own in asked.items()}
    return scores


def net_scores(
    net: SelfSupervisedResNet,
    name: str,
    events: PreparedEvents,
    config: EventDetectionConfig,
    seed: int,
    context: Context,
    parts_to_score: Sequence[str] = PARTS,
) -> Scores:
    """Detectors in the space of a trained net, and its surprise if it can guess fields."""
    parts = {part: getattr(events, part) for part in parts_to_score}
    reference = events.sample(events.train, config.reference, seed)
    spaces = {part: vectors(net, events, rows, context) for part, rows in parts.items()}
    scores = vector_scores(name, vectors(net, events, reference, context), spaces, config, seed)
    known = vectors(net, events, events.train, context)
    scores[f"{name}-history"] = history_scores(events, known, spaces, seed)
    if name != "contrastive":
        families = FamilySurprise(events.features.groups())

        def surprised(rows: np.ndarray) -> np.ndarray:
            own = events.numerical[rows], events.categorical[rows]
            passes = events.features.groups(8)
            return nll(net, *own, groups=passes, compute=context.compute).numpy()

        families.fit(surprised(events.calibration))
        scores[f"{name}-surprise"] = {part: families.score(surprised(r)) for part, r in parts.items()}
    return scores


def run(config: EventDetectionConfig, seed: int, context: Context) -> SeedResult:
    """Fit every detector on normal training events; score validation, and the test events once.

    Returns:
        What :func:`evaluate_detectors` gives; ``"share.<part>_<shape>"``, the share of anomalies among the
        judged events, which is what chance reaches in ``pr_auc``; ``"incidents.test_<shape>"``.
    """
    events = prepared(config.data, seed)
    result, scores = SeedResult(seed=seed), Scores()
    for objective in config.objectives:
        net_config = config.net.model_copy(update={"objective": objective})
        net, _ = train(events, net_config, seed, context, objective, result)
        scores |= net_scores(net, objective, events, config, seed, context)
    clock = time.perf_counter()
    scores |= raw_scores(events, config, seed)
    result.seconds["raw"] = round(time.perf_counter() - clock, 2)
    result.metrics.update(evaluate_detectors(events, scores, config.repeats))
    for shape in shapes_of(events):
        for part in PARTS:
            result.metrics[f"share.{part}_{shape}"] = float(
                positives(events, getattr(events, part), "shape", shape)[1].mean()
            )
        own = events.labels.iloc[events.test]
        sessions: pd.Series = own.loc[own["shape"] == shape, "session"]
        result.metrics[f"incidents.test_{shape}"] = float(sessions.nunique())
    return result


SMOKE = EventDetectionConfig(data=SMOKE_DATA, net=SMOKE_NET, reference=300, factor_reference=200, repeats=3)

EVENT_DETECTION = Experiment(
    "event_detection",
    "Do learned embeddings find anomalies in security events better than the raw fields?", {
    "smoke": SMOKE,
    "live": EventDetectionConfig(
        data=self_supervised.LIVE_DATA, net=PretrainConfig(num_steps=400), objectives=("masked",),
        reference=10_000, factor_reference=5_000, repeats=0,
    ),
    "full": EventDetectionConfig(),
}, run, generated_info)  # fmt: skip

_WEB = EventDataConfig(source="web")
WEB_DETECTION = Experiment("web_detection", "And on the real events of a web service?", {
    "smoke": SMOKE.model_copy(update={"data": _WEB}),
    "live": EventDetectionConfig(
        data=_WEB, net=PretrainConfig(num_steps=200), objectives=("masked",), repeats=0,
    ),
    "full": EventDetectionConfig(data=_WEB, net=PretrainConfig(num_steps=600)),
}, run, web_info)  # fmt: skip
