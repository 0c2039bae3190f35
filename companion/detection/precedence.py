"""Which of two kinds of events comes first: the simplest thing that can be said about an order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Self

import numpy as np

from companion.detection.sequences import (
    Aggregate,
    Layout,
    SequenceError,
    check_aggregate,
    checked_tokens,
    session_scores,
)

_RELATIONS = 3  # wholly before, wholly after, neither
_EVENTS = 100_000  # tokens of sessions, in one piece of the work


class Precedence:
    """How unusual it is that this stands before that, over all pairs of kinds of events in a session.

    Two different tokens of a session stand in one of three relations: all of the one before all of the other,
    the other way round, or mixed. The probability of a relation is its share among the normal sessions that
    have both tokens, with 1 added to each count (Laplace's rule). So a pair that was always the same way
    round, a thousand times, surprises when it is turned; one that was seen three times does not much. The
    score does not see what else happens, how far apart the events are, or how often they happen.

    Args:
        aggregate: how the surprises of the pairs become a score, see
            :func:`companion.detection.sequences.session_scores`.
        top: likewise.

    Raises:
        SequenceError: for an argument out of range.

    Example:
        >>> model = Precedence().fit(np.array([1, 2] * 8), np.repeat(range(8), 2))
        >>> model.score(np.array([1, 2, 2, 1]), np.array([0, 0, 1, 1])).round(2).tolist()
        [0.2, 2.4]
    """

    def __init__(self, aggregate: Aggregate = "max", top: int = 3) -> None:
        check_aggregate(aggregate, top)
        self.aggregate, self.top = aggregate, top

    def fit(self, tokens: np.ndarray, sessions: np.ndarray) -> Self:
        """Count the relations in normal sessions.

        Args:
            tokens: integers (N,), at least 0, in the order of their times within each session.
            sessions: integers (N,).

        Raises:
            SequenceError: if there are no events, or the arguments do not fit each other.
        """
        tokens, layout = checked_tokens(tokens, sessions, least=1)
        self.size_ = int(tokens.max()) + 1
        counts = np.zeros(self.size_**2 * _RELATIONS)
        for _, pair, relation in self._pairs(tokens, layout):
            counts += np.bincount(pair * _RELATIONS + relation, minlength=len(counts))
        self.counts_ = counts.reshape(-1, _RELATIONS)
        return self

    def _pairs(
        self, tokens: np.ndarray, layout: Layout
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Session, pair of tokens (the smaller first) and relation, of all pairs, in pieces."""
        owner = np.repeat(np.arange(len(layout.names)), layout.lengths)
        known = np.where(tokens < self.size_, tokens, 0)[layout.order]
        keys, first = np.unique(owner * self.size_ + known, return_index=True)
        last = len(known) - 1 - np.unique((owner * self.size_ + known)[::-1], return_index=True)[1]
        session, token = np.divmod(keys, self.size_)
        begins = np.searchsorted(session, np.arange(len(layout.names) + 1))
        start = 0
        while start < len(keys):
            nearest = int(np.searchsorted(begins, min(start + _EVENTS, len(keys)), side="right")) - 1
            stop = int(begins[nearest]) if begins[nearest] > start else int(begins[nearest + 1])
            rest = begins[session[start:stop] + 1] - np.arange(start, stop) - 1  # later tokens of the session
            a = np.repeat(np.arange(start, stop), rest)
            b = a + 1 + np.arange(len(a)) - np.repeat(np.cumsum(rest) - rest, rest)
            relation = np.where(last[a] < first[b], 0, np.where(last[b] < first[a], 1, 2))
            yield session[a], token[a] * self.size_ + token[b], relation
            start = stop

    def score(self, tokens: np.ndarray, sessions: np.ndarray) -> np.ndarray:
        """One number for each session, float64 (S,) in the rising order of the session numbers.

        A session with one kind of event has no pairs and the score 0.

        Raises:
            SequenceError: if nothing was fitted, or the arguments do not fit each other.
        """
        if not hasattr(self, "counts_"):
            raise SequenceError("fit the detector first, on normal sessions")
        tokens, layout = checked_tokens(tokens, sessions)
        chance = (self.counts_ + 1) / (self.counts_.sum(axis=1, keepdims=True) + _RELATIONS)
        scores = np.zeros(len(layout.names))
        for session, pair, relation in self._pairs(tokens, layout):
            if len(session):
                surprise = -np.log(chance[pair, relation])
                scores[np.unique(session)] = session_scores(surprise, session, self.aggregate, self.top)
        return scores
