"""Chapter 7: sessions whose events are in an unusual order."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import pandas as pd
import torch

from companion.data.ocsf_actions import ATTACKS
from companion.data.ocsf_synthetic import EventConfig, generate_events
from companion.data.sessions import EventTokens, sessions
from companion.detection.metrics import bootstrap, recall_at_fpr, roc_auc
from companion.detection.sequences import BagOfEvents, NgramModel, Precedence
from companion.estimators.sequences import SequenceAnomalyDetector, Sessions
from companion.experiments.base import Config, Context, Experiment, window_means, with_ends
from companion.experiments.event_data import LEAVE_OUT, METRICS, PreparedEvents, generated_info
from companion.experiments.self_supervised import PretrainConfig, train, vectors
from companion.objectives.event_features import EventFeatures
from companion.runs import SeedResult

ORDER_ATTACKS = tuple(name for name, attack in ATTACKS.items() if attack.shape == "order")
LstmName = Literal["next-tokens", "next-vectors", "order-tokens", "order-vectors"]
PARTS = ("train", "validation", "test")
_STARTS = {"train": "2026-01-05", "validation": "2026-02-02", "test": "2026-02-09"}
Scorer = Callable[[str], np.ndarray]


class EventSequencesConfig(Config):
    """Which events, which models, and how they are judged."""

    train_events: int = 200_000  #: of four weeks without attacks, to learn from
    later_events: int = 50_000  #: of the week after these, for validation, and of the next one, for the test
    attack_share: float = 0.02  #: of those events; order attacks only
    orders: tuple[int, ...] = (2, 3, 4)  #: of the n-grams
    #: tasks and inputs of the nets, see ``SequenceAnomalyDetector``
    lstms: tuple[LstmName, ...] = ("next-tokens", "next-vectors", "order-tokens", "order-vectors")
    #: the net that embeds events for those that read vectors
    net: PretrainConfig = PretrainConfig(d_model=64, num_blocks=2, num_steps=600)
    next_epochs: int = 10  #: passes over the sessions for the task ``"next"``
    order_epochs: int = 8  #: likewise for ``"order"``
    hidden: int = 64  #: features of the LSTM's state
    min_events: int = 5  #: shorter sessions are not judged; there is no order to see in them
    repeats: int = 100  #: samples of the bootstrap
    points: int = 40  #: how many points a training curve is averaged down to


@dataclass(frozen=True)
class Sequences:
    """Tokens and sessions of each part."""

    frames: dict[str, pd.DataFrame]  #: the events of each part, in the order of their times
    labels: dict[str, pd.DataFrame]  #: of the same rows
    tokens: dict[str, np.ndarray]  #: int64 (N,) of each part; fitted on training events
    sessions: dict[str, np.ndarray]  #: int64 (N,) of each part, told from the events' fields
    num_tokens: int


@lru_cache(maxsize=1)
def make_sequences(config: EventSequencesConfig, seed: int) -> Sequences:
    """Generate three parts of one company's time, one after the other."""
    frames, labels = {}, {}
    for i, part in enumerate(PARTS):
        learn = part == "train"
        which = EventConfig(
            num_events=config.train_events if learn else config.later_events,
            seed=len(PARTS) * seed + i,
            days=28.0 if learn else 7.0,
            attack_share=0.0 if learn else config.attack_share,
            attacks=ORDER_ATTACKS,
            start=_STARTS[part],
        )
        events = generate_events(which)
        frames[part], labels[part] = events.frame, events.labels
    encoder = EventTokens().fit(frames["train"])
    return Sequences(
        frames=frames,
        labels=labels,
        tokens={part: encoder.transform(frame) for part, frame in frames.items()},
        sessions={part: sessions(frame) for part, frame in frames.items()},
        num_tokens=len(encoder),
    )


def judged_sessions(data: Sequences, part: str, min_events: int) -> pd.DataFrame:
    """One row for each session that is judged, with its place among all sessions of the part as index.

    Returns:
        Columns ``attack`` (missing for normal sessions) and ``kind`` (of the generator's session).
    """
    own = data.labels[part][["attack", "kind"]].reset_index(drop=True)
    grouped = own.groupby(data.sessions[part])  # sessions are numbered without gaps
    found = pd.DataFrame({"attack": grouped["attack"].first(), "kind": grouped["kind"].first()})
    return found[grouped.size() >= min_events]


def embed_events(
    data: Sequences, config: EventSequencesConfig, seed: int, context: Context
) -> dict[str, np.ndarray]:
    """Embeddings of all events of each part, by a net that learned from the training events."""
    ends = np.cumsum([len(part) for part in data.frames.values()])
    rows = np.split(np.arange(ends[-1]), ends[:-1])
    features = EventFeatures(leave_out=LEAVE_OUT).fit(data.frames["train"])
    numbers, categories = zip(*(features.transform(frame) for frame in data.frames.values()), strict=True)
    events = PreparedEvents(
        features=features,
        numerical=torch.cat(numbers),
        categorical=torch.cat(categories),
        train=rows[0],
        calibration=rows[0][:0],
        validation=rows[1],
        test=rows[2],
        labels=pd.concat(data.labels.values(), ignore_index=True),
        entities=np.full(ends[-1], "", dtype=object),  # not asked for
    )
    net, _ = train(events, config.net, seed, context, "embedding")
    return {part: vectors(net, events, own, context) for part, own in zip(PARTS, rows, strict=True)}


def fit_lstm(
    data: Sequences,
    config: EventSequencesConfig,
    name: LstmName,
    embedded: dict[str, np.ndarray],
    seed: int,
    context: Context,
    result: SeedResult | None = None,
) -> tuple[Scorer, SequenceAnomalyDetector]:
    """Train one LSTM; what scores the sessions of a part, and the detector."""
    task: Literal["next", "order"] = "next" if name.startswith("next") else "order"

    def read(part: str) -> Sessions:
        own = data.tokens[part], data.sessions[part]
        return (*own, embedded[part]) if embedded else own

    # what makes a session's score, and for how long to train, was found on validation sessions
    aggregate: Literal["top", "max"] = "top" if task == "next" else "max"
    epochs = config.next_epochs if task == "next" else config.order_epochs
    detector = SequenceAnomalyDetector(
        task, hidden=config.hidden, aggregate=aggregate, num_tokens=data.num_tokens, seed=seed
    )
    own = read("train")
    context.fit_estimator(f"lstm-{name}", detector, own, epochs=epochs, validation=0.1, result=result)
    return lambda part: detector.decision_function(read(part)), detector


def simple_models(data: Sequences, config: EventSequencesConfig) -> dict[str, Scorer]:
    """Models that count, fitted on the training sessions."""
    models: dict[str, NgramModel | BagOfEvents | Precedence] = {"bag": BagOfEvents()}
    for order in config.orders:
        models[f"ngram-{order}"] = NgramModel(order, num_tokens=data.num_tokens)
    longest = max(config.orders)
    models["ngram-order"] = NgramModel(longest, "order", "mean", num_tokens=data.num_tokens)
    models["precedence"] = Precedence()
    for model in models.values():
        model.fit(data.tokens["train"], data.sessions["train"])

    def scorer(model: NgramModel | BagOfEvents | Precedence) -> Scorer:
        return lambda part: model.score(data.tokens[part], data.sessions[part])

    return {name: scorer(model) for name, model in models.items()}


def evaluate_sessions(judged: pd.DataFrame, scores: np.ndarray) -> dict[str, float]:
    """How scores of all sessions of a part rank those that are attacks.

    Returns:
        ``roc_auc``, ``pr_auc``, ``recall_at_0.01``; ``same_kind_roc_auc``, for which only those normal
        sessions count whose kind is one in which attacks happen; for each attack its recall at 1 % FPR.
    """
    attacked = judged["attack"].notna().to_numpy()
    own = scores[judged.index]
    kinds = {ATTACKS[name].kind for name in ORDER_ATTACKS}
    alike = judged["kind"].isin(kinds).to_numpy() | attacked
    found = {name: METRICS[name](attacked, own) for name in ("roc_auc", "pr_auc", "recall_at_0.01")}
    found["same_kind_roc_auc"] = roc_auc(attacked[alike], own[alike])
    for attack in ORDER_ATTACKS:
        this = (judged["attack"] == attack).to_numpy(dtype=bool)
        if this.any():
            asked = this | ~attacked
            found[attack] = recall_at_fpr(this[asked], own[asked], 0.01)
    return found


def run(config: EventSequencesConfig, seed: int, context: Context) -> SeedResult:
    """Fit everything on normal sessions; score validation sessions, and the test sessions once.

    Returns:
        For each model ``validation_`` and ``test_`` what :func:`evaluate_sessions` gives, with the ends of
        the intervals of the two areas on the test sessions (``_low``, ``_high``); ``<part>.sessions`` and
        ``<part>.attacks``; the curves ``<model>.loss`` of the nets.
    """
    data = make_sequences(config, seed)
    judged = {part: judged_sessions(data, part, config.min_events) for part in PARTS[1:]}
    result = SeedResult(seed=seed)
    metrics = result.metrics
    metrics["train.sessions"] = float(data.sessions["train"].max() + 1)
    for part, own in judged.items():
        metrics[f"{part}.sessions"] = float(len(own))
        metrics[f"{part}.attacks"] = float(own["attack"].notna().sum())
    clock = time.perf_counter()
    scorers = simple_models(data, config)
    result.seconds["counting"] = round(time.perf_counter() - clock, 2)
    embedded: dict[str, np.ndarray] = {}
    for name in config.lstms:
        if name.endswith("vectors") and not embedded:
            embedded = embed_events(data, config, seed, context)
        used = embedded if name.endswith("vectors") else {}
        scorers[f"lstm-{name}"], detector = fit_lstm(data, config, name, used, seed, context, result)
        losses = detector.history_.train["loss"]
        result.curves[f"lstm-{name}.loss"] = window_means(losses, config.points)
    for model, score in scorers.items():
        for part, own in judged.items():
            scores = score(part)
            for key, value in evaluate_sessions(own, scores).items():
                metrics[f"{model}.{part}_{key}"] = value
            for key in ("roc_auc", "pr_auc") if part == "test" and config.repeats else ():
                attacked = own["attack"].notna().to_numpy()
                got = bootstrap(METRICS[key], attacked, scores[own.index], repeats=config.repeats)
                metrics.update(with_ends(f"{model}.test_{key}", got))
    return result


EVENT_SEQUENCES = Experiment(
    "event_sequences", "Does an LSTM see an unusual order of events better than counting does?", {
    "smoke": EventSequencesConfig(
        train_events=3000, later_events=1500, attack_share=0.3, orders=(2,),
        lstms=("next-tokens", "order-vectors"),
        net=PretrainConfig(d_model=8, num_blocks=1, num_steps=4, batch_size=64), next_epochs=1,
        order_epochs=1, hidden=8, repeats=3, points=4,
    ),
    "live": EventSequencesConfig(
        train_events=60_000, later_events=20_000, lstms=("next-tokens", "order-tokens"), next_epochs=5,
        order_epochs=5, repeats=0,
    ),
    "full": EventSequencesConfig(),
}, run, generated_info)  # fmt: skip
