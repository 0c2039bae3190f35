"""A net that finds unusual sequences of events.

It learns to expect the next event of normal sessions; a session whose events it did not expect is unusual.
Source: Du et al. 2017, "DeepLog: Anomaly Detection and Diagnosis from System Logs through Deep Learning",
which flags an event that is not among the likeliest ones; here its negative log-likelihood is the score.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from companion.detection.metrics import check_scores
from companion.detection.sequences import Aggregate, Layout, Task, check_tokens, session_scores
from companion.estimators.base import AnomalyDetector, Count, Positive
from companion.models.lstm import NextEventLSTM
from companion.objectives.next_event import STRETCH, NextEvent, pieces
from companion.training import FitConfig

Sessions = tuple[np.ndarray, np.ndarray] | tuple[np.ndarray, np.ndarray, np.ndarray]
_BATCH_EVENTS = 2**15  # events in one pass over several sessions that learns nothing, padding included
_CHUNK = 64  # events of a session that are learned from at a time


class SequenceAnomalyDetector(AnomalyDetector):
    """An LSTM over the events of a session, trained on normal sessions without labels.

    The examples are a tuple ``(tokens, sessions)`` or ``(tokens, sessions, vectors)``: int (N,) what each
    event is, which the net has to expect; int (N,) which session it belongs to, in the order of time within
    each, and perhaps interleaved; float (N, d), such as its embedding. The net reads the vectors of past
    events, standardised, or if there are none their tokens. Scores are in the rising order of
    the session numbers, ``np.unique(sessions)``.

    In training, long sessions are cut into chunks of 64 events. In scoring nothing is cut.

    Args:
        task: ``"next"``: the surprise is at what comes next, of all that may come. ``"order"``: at what comes
            next of all that the session has left; see :class:`companion.objectives.next_event.NextEvent`.
        hidden: features of the LSTM's state.
        dropout: behind the LSTM.
        aggregate: how a session's score comes from the surprises of its events, see
            :func:`companion.detection.sequences.session_scores`.
        lr: of AdamW, which falls to 0 along a cosine.
        batch_size: sessions, or chunks of long ones, in a step.
        patience: stop after this many epochs without a lower validation loss, and take the best weights.
        num_tokens: how many there are; by default one more than the largest in training. Larger ones
            count as ``UNSEEN``, which is 0.
        seed: decides initial weights, hold-out, order and dropout.

    Example:
        >>> tokens, sessions = np.array([1, 2, 3] * 20), np.repeat(np.arange(20), 3)
        >>> model = SequenceAnomalyDetector(hidden=8).fit((tokens, sessions), epochs=2)
        >>> model.decision_function((tokens[:5], sessions[:5])).shape
        (2,)
    """

    _facts: ClassVar = {"size_": Count, "mean_": list[float], "scale_": list[Positive]}

    def __init__(
        self,
        task: Task = "next",
        *,
        hidden: Count = 64,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3,
        aggregate: Aggregate = "top",
        lr: Positive = 0.01,
        batch_size: Count = 64,
        patience: Count | None = 5,
        num_tokens: Count | None = None,
        seed: int = 0,
    ) -> None:
        self.task, self.hidden, self.dropout, self.aggregate = task, hidden, dropout, aggregate
        self.lr, self.batch_size, self.patience = lr, batch_size, patience
        self.num_tokens, self.seed = num_tokens, seed

    def _config(self, epochs: int, count: int, watched: bool) -> FitConfig:
        own = {"optimizer": "adamw", "schedule": "cosine", "weight_decay": 0.0}
        return super()._config(epochs, count, watched).model_copy(update=own)

    def _learn_shapes(self, X: Sessions) -> None:
        tokens, _ = check_tokens(X[0], X[1])
        self.size_ = self.num_tokens or int(tokens.max()) + 1
        self.mean_: list[float] = []
        self.scale_: list[float] = []
        if len(X) == 3:
            vectors = check_scores(X[2], "vectors", axes=2).astype(np.float32)
            scale = vectors.std(axis=0, dtype=np.float64).astype(np.float32)
            scale[scale < 1e-6] = 1.0
            self.mean_, self.scale_ = vectors.mean(axis=0, dtype=np.float64).tolist(), scale.tolist()

    def _net(self) -> NextEventLSTM:
        vectors = torch.empty(0, len(self.mean_)) if self.mean_ else None
        width, context = NextEvent(torch.empty(0), self.size_, vectors, self.task).widths
        return NextEventLSTM(width, self.size_, self.hidden, dropout=self.dropout, num_context=context)

    def _held_out(self, X: Sessions) -> tuple[Tensor, ...]:
        raise ValueError("validation is a share of the sessions")  # the objective knows one set of events

    def _objective(self, X: Sessions) -> NextEvent:
        """What the net reads of the events, and their tokens as far as it knows them."""
        known = torch.from_numpy(np.where(X[0] < self.size_, X[0], 0).astype(np.int64))
        if not self.mean_:
            return NextEvent(known, self.size_, None, self.task)
        if len(X) < 3 or len(X[2]) != len(known):
            raise ValueError(f"this model reads a vector of each of the {len(known)} events")
        vectors = check_scores(X[2], "vectors", axes=2).astype(np.float32)
        if vectors.shape[1] != len(self.mean_):
            raise ValueError(f"need vectors of {len(self.mean_)} numbers, not of {vectors.shape[1]}")
        standard = (vectors - np.array(self.mean_, np.float32)) / np.array(self.scale_, np.float32)
        return NextEvent(known, self.size_, torch.from_numpy(standard), self.task)

    def _examples(self, X: Sessions) -> tuple[tuple[Tensor, ...], np.ndarray]:
        """Chunks of sessions as rows of event numbers, and the session of each."""
        _, layout = check_tokens(X[0], X[1])
        rows = _rows(layout, np.arange(len(layout.names)), _CHUNK)
        return (rows,), np.repeat(layout.names, -(-layout.lengths // _CHUNK))

    @torch.inference_mode()
    def surprise(self, X: Sessions) -> np.ndarray:
        """Of each event, the negative log-likelihood that the net gave to it: nats, float64 (N,)."""
        check_is_fitted(self, "net_")
        tokens, layout = check_tokens(X[0], X[1])
        data, out = self._objective((tokens, *X[1:])), np.empty(len(tokens))
        by_length = np.argsort(layout.lengths, kind="stable")  # so that little is padded
        while len(by_length):
            widths = np.minimum(layout.lengths[by_length], STRETCH)
            fits = int((widths * (np.arange(len(widths)) + 1) <= _BATCH_EVENTS).sum())
            chosen, by_length = np.split(by_length, [max(1, fits)])
            rows = _rows(layout, chosen, int(layout.lengths[chosen].max()))  # (N, 1 + T)
            there = rows[:, 1:] >= 0
            out[rows[:, 1:][there].numpy()] = data.surprises(self.net_, rows)[there].numpy()
        return out

    def _score(self, X: Sessions) -> np.ndarray:
        return session_scores(self.surprise(X), X[1], self.aggregate)


def _rows(layout: Layout, chosen: np.ndarray, most: int) -> Tensor:
    starts, lengths = (torch.from_numpy(part[chosen]) for part in (layout.starts, layout.lengths))
    return pieces(torch.from_numpy(layout.order), starts, lengths, most)
