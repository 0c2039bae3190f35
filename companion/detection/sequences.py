"""Detectors of unusual sessions that count instead of learning weights.

A session is the tokens of its events, integers (T,), in the order of their times. Each detector learns from
normal sessions with ``fit(sessions)`` and gives ``score(sessions)``, float64 (S,), higher for the unusual.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Self

import numpy as np

from companion.detection.detectors import NeighborIndex

_START = -1


class NgramModel:
    """How likely each event is after the few before it, by counting; and how likely the session's end.

    The probability of token w after the history h is that of Witten and Bell ("The Zero-Frequency Problem",
    1991, method C), interpolated over all lengths of the history (Chen and Goodman, "An Empirical Study of
    Smoothing Techniques for Language Modeling", 1999, section 2.5):

    ``p(w | h) = (count(h w) + kinds(h) p(w | h')) / (count(h) + kinds(h))``,

    where ``kinds(h)`` is how many different tokens followed h in training, and h' is h without its oldest
    token. A history that training never had gives way to h'. Below the empty history stands the uniform
    distribution, so every token has a probability above 0. Sessions begin with a start symbol and end with
    the token ``num_tokens``, so one that stops too early surprises, too.
    ``order`` is the number of events in an n-gram, 1 for no history.
    """

    def __init__(self, order: int, num_tokens: int) -> None:
        self.order, self.num_tokens = order, num_tokens

    def fit(self, sessions: Sequence[np.ndarray]) -> Self:
        """Count the n-grams of normal sessions."""
        self.counts_: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
        for history, token in (pair for session in sessions for pair in self._pairs(session)):
            for k in range(self.order):
                self.counts_[tuple(history[len(history) - k :])][token] += 1
        self._totals = {history: counts.total() for history, counts in self.counts_.items()}
        return self

    def _pairs(self, session: np.ndarray) -> Iterator[tuple[list[int], int]]:
        """The history before each event and before the end, and the token itself."""
        padded = [_START] * (self.order - 1) + [*session.tolist(), self.num_tokens]
        for end in range(self.order - 1, len(padded)):
            yield padded[end - self.order + 1 : end], padded[end]

    def probability(self, token: int, history: Sequence[int]) -> float:
        """Of a token after those before it in its session, the oldest first; the session's start is -1."""
        chance = 1 / (self.num_tokens + 1)
        for k in range(self.order):
            context = tuple(history[len(history) - k :])
            if context not in self._totals:
                break  # nor was any longer one
            counts, total = self.counts_[context], self._totals[context]
            chance = (counts[token] + len(counts) * chance) / (total + len(counts))
        return chance

    def surprises(self, session: np.ndarray) -> np.ndarray:
        """How unlikely each event and the end are: nats, float64 (T + 1,)."""
        return np.array([-math.log(self.probability(token, past)) for past, token in self._pairs(session)])

    def score(self, sessions: Sequence[np.ndarray]) -> np.ndarray:
        """The largest surprise of each session: float64 (S,)."""
        return np.array([self.surprises(session).max() for session in sessions])


class BagOfEvents:
    """What happens in a session, whatever its order: the distance to the nearest normal sessions.

    A session is the square roots of how often it has each token, so that a frequent token does not drown the
    others (Hellinger's distance without the division by the length). An order alone it cannot see.
    """

    def __init__(self, num_tokens: int, neighbors: int = 5) -> None:
        self.num_tokens, self.neighbors = num_tokens, neighbors

    def fit(self, sessions: Sequence[np.ndarray]) -> Self:
        """Keep the counts of normal sessions."""
        self.index_ = NeighborIndex(self.neighbors).fit(self._roots(sessions))
        return self

    def _roots(self, sessions: Sequence[np.ndarray]) -> np.ndarray:
        """float32 (S, ``num_tokens``), square roots of counts."""
        counts = [np.bincount(session, minlength=self.num_tokens) for session in sessions]
        return np.sqrt(np.array(counts), dtype=np.float32)

    def score(self, sessions: Sequence[np.ndarray]) -> np.ndarray:
        """float64 (S,)."""
        return self.index_.score(self._roots(sessions))


class Precedence:
    """How unusual it is that this stands before that: the least likely of all pairs of kinds of events.

    Two different tokens of a session stand in one of three relations: all of the one before all of the other,
    the other way round, or mixed. The probability of a relation is its share among the normal sessions that
    have both tokens, with 1 added to each count (Laplace's rule). The score does not see what else happens,
    how far apart the events are, or how often they happen.
    """

    def fit(self, sessions: Sequence[np.ndarray]) -> Self:
        """Count the relations in normal sessions."""
        self.counts_ = Counter(relation for session in sessions for relation in self._relations(session))
        return self

    def _relations(self, session: np.ndarray) -> Iterator[tuple[int, int, int]]:
        """Pairs of tokens, the smaller first, with 0 for before, 1 for behind, and 2 for mixed."""
        tokens = session.tolist()
        last = {token: place for place, token in enumerate(tokens)}
        first = {token: -place for place, token in enumerate(reversed(tokens), 1 - len(tokens))}
        for a, b in combinations(sorted(last), 2):
            yield a, b, 0 if last[a] < first[b] else 1 if last[b] < first[a] else 2

    def _nats(self, a: int, b: int, relation: int) -> float:
        total = sum(self.counts_[a, b, other] for other in range(3))
        return -math.log((self.counts_[a, b, relation] + 1) / (total + 3))

    def score(self, sessions: Sequence[np.ndarray]) -> np.ndarray:
        """float64 (S,); a session with one kind of event has no pairs and the score 0."""
        each = ([self._nats(*pair) for pair in self._relations(session)] for session in sessions)
        return np.array([max(nats, default=0.0) for nats in each], dtype=np.float64)
