"""Detectors for sequences of tokens that count instead of learning weights: baselines of a net.

Each learns from normal sessions with ``fit(tokens, sessions)`` and gives ``score(tokens, sessions)``, float64
(S,), one number for each session in the rising order of the session numbers, higher for the unusual. Tokens
and sessions are integers (N,); events stand in the order of their times; sessions may be interleaved.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, Self

import numpy as np

from companion.detection.detectors import NeighborIndex
from companion.detection.metrics import check_scores

Aggregate = Literal["mean", "max", "top"]
"""How the surprises of a session's events become its score, see :func:`session_scores`."""
Task = Literal["next", "order"]
"""What has to be found, the next event among all kinds or among those that the session has left."""
_START = -1


@dataclass(frozen=True)
class Layout:
    """Which events belong to which session."""

    names: np.ndarray  #: int64 (S,), the different session numbers, rising
    order: np.ndarray  #: int64 (N,), the events session by session, within each in the order they came
    starts: np.ndarray  #: int64 (S,), where in ``order`` each session begins
    lengths: np.ndarray  #: int64 (S,), how many events it has; at least 1

    def split(self, values: np.ndarray) -> list[np.ndarray]:
        """Values (N,) of the events, session by session."""
        return np.split(values[self.order], self.starts[1:]) if len(self.names) else []


def lay_out(sessions: np.ndarray) -> Layout:
    """Put the events of each session, integers (N,) in any order, together.

    Example:
        >>> lay_out(np.array([7, 3, 7])).order.tolist()
        [1, 0, 2]
    """
    order = np.argsort(sessions, kind="stable")
    names, starts, lengths = np.unique(sessions[order], return_index=True, return_counts=True)
    return Layout(names, order, starts.astype(np.int64), lengths.astype(np.int64))


def check_tokens(tokens: np.ndarray, sessions: np.ndarray) -> tuple[np.ndarray, Layout]:
    """Tokens as int64 (N,), with the layout of their sessions."""
    tokens, sessions = (x if x.size else x.astype(np.int64) for x in map(np.asarray, (tokens, sessions)))
    integers = {tokens.dtype.kind, sessions.dtype.kind} <= set("iu")
    if not integers or tokens.ndim != 1 or tokens.shape != sessions.shape:
        told = " and ".join(f"{array.dtype} {array.shape}" for array in (tokens, sessions))
        raise ValueError(f"tokens and sessions are integers (N,), as many sessions as tokens, not {told}")
    if len(tokens) and tokens.min() < 0:
        raise ValueError(f"tokens count from 0; there is a {tokens.min()}")
    return tokens.astype(np.int64), lay_out(sessions)


def session_scores(
    surprise: np.ndarray, sessions: np.ndarray, aggregate: Aggregate = "mean", top: int = 3
) -> np.ndarray:
    """One score for each session, float64 (S,), from the surprises (N,) of its events.

    That is the ``"mean"`` of all, the ``"max"``, or the mean of the ``"top"`` largest.

    Example:
        >>> session_scores(np.array([1.0, 5.0, 3.0]), np.array([0, 1, 0]), "max").tolist()
        [3.0, 5.0]
    """
    most = {"mean": None, "max": 1, "top": top}[aggregate]
    each = lay_out(sessions).split(check_scores(surprise, "surprises"))
    return np.array([np.sort(own)[::-1][:most].mean() for own in each], dtype=np.float64)


class NgramModel:
    """How likely each event is after the few before it, by counting.

    The probability of token w after the history h is that of Witten and Bell, interpolated over all lengths
    of the history (I. H. Witten and T. C. Bell, "The Zero-Frequency Problem: Estimating the Probabilities of
    Novel Events in Adaptive Text Compression", IEEE Transactions on Information Theory, 1991, method C; in
    this form in S. F. Chen and J. Goodman, "An Empirical Study of Smoothing Techniques for Language
    Modeling", 1999, section 2.5):

    ``p(w | h) = (count(h w) + kinds(h) p(w | h')) / (count(h) + kinds(h))``,

    where ``kinds(h)`` is how many different tokens followed h in training, and h' is h without its oldest
    token. A history that training never had gives way to h'. Below the empty history stands the uniform
    distribution, so every token has a probability above 0. Sessions begin with a start symbol.

    With ``task="order"`` the same probabilities are shared out among the events that the session has left:
    the surprise is at which of them comes now. So what is rare surprises only if it stands in the wrong
    place, and a session can be judged when it is over.

    Args:
        order: events in an n-gram: 1 for no history, 2 for the event before, and so on.
        num_tokens: by default one more than the largest in training. Larger ones count as unseen, which is 0.

    Example:
        >>> model = NgramModel(2).fit(np.array([1, 2, 1, 2]), np.array([0, 0, 1, 1]))
        >>> [round(model.probability(token, [1]), 3) for token in range(3)]
        [0.037, 0.148, 0.815]
    """

    def __init__(
        self, order: int = 3, task: Task = "next", aggregate: Aggregate = "top", num_tokens: int | None = None
    ) -> None:
        self.order, self.task, self.aggregate, self.num_tokens = order, task, aggregate, num_tokens

    def _padded(self, session: Sequence[int]) -> list[int]:
        return [_START] * (self.order - 1) + [token if token < self.size_ else 0 for token in session]

    def fit(self, tokens: np.ndarray, sessions: np.ndarray) -> Self:
        """Count the n-grams of normal sessions."""
        tokens, layout = check_tokens(tokens, sessions)
        self.size_ = self.num_tokens or int(tokens.max()) + 1
        self.counts_: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
        for session in layout.split(tokens):
            padded = self._padded(session.tolist())
            for end in range(self.order - 1, len(padded)):
                for k in range(self.order):
                    self.counts_[tuple(padded[end - k : end])][padded[end]] += 1
        self._totals = {history: counts.total() for history, counts in self.counts_.items()}
        return self

    def probability(self, token: int, history: Sequence[int]) -> float:
        """Of a token after those before it in its session, the oldest first; the session's start is -1."""
        chance = 1 / self.size_
        for k in range(self.order):
            context = tuple(history[len(history) - k :])
            if context not in self._totals:
                break  # nor was any longer one
            counts, total = self.counts_[context], self._totals[context]
            chance = (counts[token] + len(counts) * chance) / (total + len(counts))
        return chance

    def surprise(self, tokens: np.ndarray, sessions: np.ndarray) -> np.ndarray:
        """The negative logarithm of each event's probability in nats: float64 (N,), in their order."""
        tokens, layout = check_tokens(tokens, sessions)
        found = [nats for session in layout.split(tokens) for nats in self._surprises(session.tolist())]
        surprise = np.empty(len(tokens))
        surprise[layout.order] = found
        return surprise

    def _surprises(self, session: list[int]) -> Iterator[float]:
        padded = self._padded(session)
        left = Counter(padded[self.order - 1 :])
        for end in range(self.order - 1, len(padded)):
            token, history = padded[end], padded[end - self.order + 1 : end]
            chance = self.probability(token, history)
            if self.task == "order":
                share = sum(left[other] * self.probability(other, history) for other in sorted(left))
                chance = chance * left[token] / share
                left[token] -= 1
            yield -math.log(chance)

    def score(self, tokens: np.ndarray, sessions: np.ndarray) -> np.ndarray:
        """float64 (S,)."""
        return session_scores(self.surprise(tokens, sessions), sessions, self.aggregate)


class BagOfEvents:
    """What happens in a session, whatever its order: the distance to the nearest normal sessions.

    A session is the square roots of how often it has each token; their Euclidean distance is Hellinger's
    without the division by the length, so that a frequent token does not drown the others. The nearest
    normal sessions are asked for, and not the probability of single events, because a session is strange
    by what it combines. An order alone it cannot see; if it tells order attacks, something else betrays them.

    Example:
        >>> bag = BagOfEvents(1).fit(np.array([0, 1, 1, 0]), np.array([0, 0, 1, 1]))
        >>> bag.score(np.array([1, 0, 1, 1]), np.array([0, 0, 1, 1])).round(3).tolist()
        [0.0, 1.082]
    """

    def __init__(self, neighbors: int = 5) -> None:
        self.neighbors = neighbors

    def fit(self, tokens: np.ndarray, sessions: np.ndarray) -> Self:
        """Keep the counts of normal sessions."""
        self.size_ = int(tokens.max()) + 1
        self.index_ = NeighborIndex(self.neighbors).fit(self._counts(tokens, sessions))
        return self

    def _counts(self, tokens: np.ndarray, sessions: np.ndarray) -> np.ndarray:
        """float32 (S, tokens + 1), square roots of counts; the last is for tokens that training had not."""
        tokens, layout = check_tokens(tokens, sessions)
        known, width = np.minimum(tokens, self.size_), self.size_ + 1
        counts = [np.bincount(own, minlength=width) for own in layout.split(known)]
        return np.sqrt(np.array(counts).reshape(-1, width), dtype=np.float32)

    def score(self, tokens: np.ndarray, sessions: np.ndarray) -> np.ndarray:
        """float64 (S,)."""
        return self.index_.score(self._counts(tokens, sessions))


class Precedence:
    """How unusual it is that this stands before that: the least likely of all pairs of kinds of events.

    Two different tokens of a session stand in one of three relations: all of the one before all of the other,
    the other way round, or mixed. The probability of a relation is its share among the normal sessions that
    have both tokens, with 1 added to each count (Laplace's rule). So a pair that was always the same way
    round, a thousand times, surprises when it is turned; one that was seen three times does not much. The
    score does not see what else happens, how far apart the events are, or how often they happen.

    Example:
        >>> model = Precedence().fit(np.array([1, 2] * 8), np.repeat(range(8), 2))
        >>> model.score(np.array([1, 2, 2, 1]), np.array([0, 0, 1, 1])).round(2).tolist()
        [0.2, 2.4]
    """

    def fit(self, tokens: np.ndarray, sessions: np.ndarray) -> Self:
        """Count the relations in normal sessions."""
        tokens, layout = check_tokens(tokens, sessions)
        self.known_ = set(tokens.tolist())
        own = layout.split(tokens)
        self.counts_ = Counter(relation for session in own for relation in self._relations(session))
        return self

    def _relations(self, session: np.ndarray) -> Iterator[tuple[int, int, int]]:
        """Pairs of tokens, the smaller first, with 0 for before, 1 for behind, and 2 for mixed."""
        size = max(self.known_) + 1
        known = np.where(session < size, session, 0).tolist()
        last = {token: place for place, token in enumerate(known)}
        first = {token: -place for place, token in enumerate(reversed(known), 1 - len(known))}
        for a, b in combinations(sorted(last), 2):
            yield a, b, 0 if last[a] < first[b] else 1 if last[b] < first[a] else 2

    def _nats(self, a: int, b: int, relation: int) -> float:
        total = sum(self.counts_[a, b, other] for other in range(3))
        return -math.log((self.counts_[a, b, relation] + 1) / (total + 3))

    def score(self, tokens: np.ndarray, sessions: np.ndarray) -> np.ndarray:
        """float64 (S,); a session with one kind of event has no pairs and the score 0."""
        tokens, layout = check_tokens(tokens, sessions)
        each = ([self._nats(*pair) for pair in self._relations(own)] for own in layout.split(tokens))
        return np.array([max(nats, default=0.0) for nats in each], dtype=np.float64)
