"""Chapter 7: unusual sessions, by what happens in them, by what comes next, and by when they end."""

import time
from typing import Literal

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import average_precision_score, f1_score, precision_recall_curve
from torch import nn

from companion.data.sessions import SessionSet, generated_sessions, hdfs_sessions, load_hdfs
from companion.detection.metrics import recall_at_fpr, roc_auc
from companion.detection.sequences import BagOfEvents, NgramModel, Precedence
from companion.experiments.base import Config, Context, data_info, from_table
from companion.models.lstm import NextEventLSTM, NextEventTransformer
from companion.objectives.next_event import NextEvent, judge, session_rows
from companion.runs import SeedResult
from companion.training import FitConfig, evaluate

PUBLISHED_G = 9  # DeepLog's g on HDFS: an event is anomalous if it is not among so many likeliest ones
Scores = dict[str, np.ndarray]  # by model, one a session


class NextEventConfig(Config):
    """One net that expects the next event, and how it is trained."""

    kind: Literal["lstm", "transformer"] = "lstm"
    history: int | None = None  #: how many events before the next one it sees; ``None`` for all
    steps: int = 1200  #: of Adam, on 64 sessions each; the learning rate falls to 0 as a cosine
    lr: float = 0.02  #: the highest learning rate
    sets: tuple[str, ...] = ("hdfs",)  #: on which it is trained

    def net(self, num_tokens: int, seed: int) -> nn.Module:
        """A new net."""
        torch.manual_seed(seed)
        return (NextEventLSTM if self.kind == "lstm" else NextEventTransformer)(num_tokens)


class EventSequencesConfig(Config):
    """Which sessions, and which models."""

    sets: tuple[Literal["hdfs", "generated"], ...] = ("hdfs", "generated")
    learn: int = 2400  #: normal sessions of HDFS to learn from, drawn by the seed
    validate_on: int = 800  #: further normal ones, and as many anomalous ones, for validation
    events: int = 100_000  #: generated ones, half of them to learn from
    attack_share: float = 0.04  #: of these; a third of the incidents are order attacks, the others left out
    orders: tuple[int, ...] = (2, 3, 4)  #: of the n-grams
    nets: dict[str, NextEventConfig]  #: by their names; an untrained one of "lstm" is judged as well


def weights(labels: np.ndarray, share: float | None) -> np.ndarray:
    """One weight a session, so that anomalies weigh as much as their share where the log comes from."""
    own = float(labels.mean())
    wanted = share or own
    return np.asarray(np.where(labels, wanted / own, (1 - wanted) / (1 - own)))


def measure(data: SessionSet, scores: np.ndarray, rows: np.ndarray, ranks: bool) -> dict[str, float]:
    """How scores (S,) of the others rank anomalies, among ``rows`` bool (S,).

    ``f1`` is at the threshold that was best on validation; ``f1_published``, if the scores are ``ranks``, at
    DeepLog's g. ``pr_auc`` and ``f1`` are with :func:`weights`.
    """
    parts = [(data.abnormal[part], scores[part]) for part in (rows & ~data.test, rows & data.test)]
    (known, chosen), (labels, judged) = parts
    before, heavy = (weights(part, data.share) for part, _ in parts)
    precision, recall, thresholds = precision_recall_curve(known, chosen, sample_weight=before)
    best = (2 * precision * recall / np.maximum(precision + recall, 1e-12))[:-1].argmax()
    flagged = {"f1": judged >= thresholds[best]} | ({"f1_published": judged > PUBLISHED_G} if ranks else {})
    return {
        "pr_auc": float(average_precision_score(labels, judged, sample_weight=heavy)),
        "roc_auc": roc_auc(labels, judged),
        "recall_at_0.01": recall_at_fpr(labels, judged, 0.01),
        **{name: float(f1_score(labels, own, sample_weight=heavy)) for name, own in flagged.items()},
        "validation_pr_auc": float(average_precision_score(known, chosen, sample_weight=before)),
    }


def counted_scores(data: SessionSet, sessions: list[np.ndarray], orders: tuple[int, ...]) -> Scores:
    """Scores of sessions by the models that count; for the endings see :func:`net_scores`."""
    scores = {
        "bag": BagOfEvents(data.num_tokens).fit(data.learn).score(sessions),
        "precedence": Precedence().fit(data.learn).score(sessions),
    }
    for order in orders:
        ngram = NgramModel(order, data.num_tokens).fit(data.learn)
        nats = [ngram.surprises(session) for session in sessions]
        scores[f"ngram-{order}"] = np.array([own.max() for own in nats])
        scores[f"ngram-{order}-sum"] = np.array([own.sum() for own in nats])
        scores[f"ngram-{order}-no_end"] = np.array([own[:-1].max() for own in nats])
    return scores


def net_scores(
    net: nn.Module, name: str, objective: NextEvent, data: SessionSet, sessions: list[np.ndarray]
) -> Scores:
    """Scores of sessions by a net, in several ways.

    ``name`` is the largest surprise, ``name-sum`` their sum, ``name-rank`` the worst rank (DeepLog). With
    ``-no_end`` behind it the same without the surprise at the session's end.
    """
    nats, rank = judge(net, session_rows(sessions, data.num_tokens), objective)
    events = np.arange(nats.shape[1]) < np.array([len(session) for session in sessions])[:, None]
    scores = {name: nats.max(axis=1), f"{name}-sum": nats.sum(axis=1), f"{name}-rank": rank.max(axis=1)}
    for way, values in {name: nats, f"{name}-rank": rank}.items():
        scores[f"{way}-no_end"] = np.where(events, values, 0).max(axis=1)
    return scores


def fit_net(
    data: SessionSet, own: NextEventConfig, name: str, seed: int, context: Context,
    result: SeedResult | None = None,
) -> nn.Module:  # fmt: skip
    """Train a net on the sessions to learn from, and watch its loss on the normal ones of validation."""
    net = own.net(data.num_tokens + 1, seed)
    held = [session for session, there in zip(data.others, data.held, strict=True) if there]
    learn, watched = (session_rows(part, data.num_tokens) for part in (data.learn, held))
    config = FitConfig(
        num_steps=own.steps, batch_size=64, lr=own.lr, optimizer="adam", schedule="cosine",
        weight_decay=0.0, eval_every=max(1, own.steps // 10),
    )  # fmt: skip
    objective = NextEvent(own.history)
    history = context.fit(
        name, net, (learn,), objective, config, seed, result=result,
        evaluation=lambda net: evaluate(net, (watched,), objective, context.compute),
    )  # fmt: skip
    if result is not None:
        result.curves[f"{name}.validation_loss"] = history.evaluations["loss"]
    return net


def run(config: EventSequencesConfig, seed: int, context: Context) -> SeedResult:
    """Fit every model on the normal sessions to learn from, and :func:`measure` it on the others.

    On all sessions ("hdfs.bag.pr_auc") and on those that are equal to no learned and no earlier one
    ("hdfs-distinct.bag.pr_auc"). ``validation_nats`` is the mean surprise at an event of normal sessions.
    """
    result = SeedResult(seed=seed)
    for name in config.sets:
        data = (
            hdfs_sessions(config.learn, config.validate_on, seed) if name == "hdfs"
            else generated_sessions(config.events, config.attack_share, seed)
        )  # fmt: skip
        codes, _ = pd.factorize(np.array([own.tobytes() for own in data.others], dtype=object))
        sessions = [data.others[i] for i in np.unique(codes, return_index=True)[1]]  # equal ones only once
        clock = time.perf_counter()
        scores = counted_scores(data, sessions, config.orders)
        result.seconds[f"{name}.counting"] = round(time.perf_counter() - clock, 2)
        for kind, own in config.nets.items():
            if name in own.sets:
                objective = NextEvent(own.history)
                if kind == "lstm":
                    untrained = context.compute.model(own.net(data.num_tokens + 1, seed))
                    scores |= net_scores(untrained, "untrained", objective, data, sessions)
                net = fit_net(data, own, f"{name}.{kind}", seed, context, result)
                scores |= net_scores(net, kind, objective, data, sessions)
        lengths = np.array([len(session) + 1 for session in data.others])
        for model in [model for model in scores if model.endswith("-sum")]:
            nats = scores[model][codes][data.held].sum() / lengths[data.held].sum()
            result.metrics[f"{name}.{model[:-4]}.validation_nats"] = float(nats)
        for which, rows in {name: np.ones_like(data.fresh), f"{name}-distinct": data.fresh}.items():
            for label, wanted in {"normal": ~data.abnormal, "abnormal": data.abnormal}.items():
                result.metrics[f"{which}.test_{label}"] = float((rows & data.test & wanted).sum())
            for model, values in scores.items():
                measured = measure(data, values[codes], rows, "-rank" in model)
                result.metrics.update({f"{which}.{model}.{key}": value for key, value in measured.items()})
    return result


EVENT_SEQUENCES = from_table(
    "event_sequences", EventSequencesConfig, run, lambda: data_info(load_hdfs(), name="HDFS sessions")
)
