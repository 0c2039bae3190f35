"""Labelled sessions of events, in the three parts that the models of chapter 7 need.

A session is the tokens of its events, int64 (T,), in the order of their times.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from companion.data.security import load_hdfs
from companion.data.synthetic_events import EventConfig, generate_events

HDFS_SHARE = 16_838 / 575_061
"""Of anomalous sessions in the whole log; our files hold 4,855 of the normal ones."""
SESSION_COLUMNS = ("actor.session.uid", "session.uid")
"""Which session an event belongs to, the first of these that it has."""


def by_session(tokens: np.ndarray, sessions: np.ndarray) -> list[np.ndarray]:
    """Tokens (N,) of events in the order of their times, put together by session numbers (N,), rising.

    Example:
        >>> [own.tolist() for own in by_session(np.array([5, 6, 7]), np.array([9, 2, 9]))]
        [[6], [5, 7]]
    """
    order = np.argsort(sessions, kind="stable")
    starts = np.flatnonzero(np.diff(sessions[order])) + 1
    return np.split(tokens[order], starts) if len(order) else []


@dataclass(frozen=True)
class SessionSet:
    """Labelled sessions in three parts; those to learn from are normal."""

    learn: list[np.ndarray]  #: tokens of each session, int64 (T,)
    others: list[np.ndarray]  #: those of validation, then those of the test
    abnormal: np.ndarray  #: bool (S,), of the others
    test: np.ndarray  #: bool (S,), whether one of the others is for the test
    num_tokens: int  #: every token is smaller
    share: float | None = None  #: of anomalies where the log comes from, if it is another than here

    @property
    def held(self) -> np.ndarray:
        """The normal ones of validation: bool (S,)."""
        return np.asarray(~self.abnormal & ~self.test)

    @property
    def fresh(self) -> np.ndarray:
        """Those equal to no learned and no earlier session, token by token: bool (S,)."""
        text = pd.Series([session.tobytes() for session in self.learn + self.others])
        return np.asarray(~text.duplicated()[len(self.learn) :])


def hdfs_sessions(num_learn: int, num_validation: int, seed: int) -> SessionSet:
    """HDFS: normal sessions to learn from, as many of both kinds for validation, the rest for the test.

    The seed draws. Sessions are drawn as they come, as in the literature, so many of the test are equal to a
    learned one.
    """
    data = load_hdfs()
    sessions = by_session(data.tokens, data.sessions)
    rng = np.random.default_rng(seed)
    normal, abnormal = (rng.permutation(np.flatnonzero(data.abnormal == kind)) for kind in (False, True))
    learn, held, rest = np.split(normal, [num_learn, num_learn + num_validation])
    others = np.concatenate([held, abnormal[:num_validation], rest, abnormal[num_validation:]])
    return SessionSet(
        learn=[sessions[i] for i in learn],
        others=[sessions[i] for i in others],
        abnormal=data.abnormal[others],
        test=np.arange(len(others)) >= 2 * num_validation,
        num_tokens=int(data.tokens.max()) + 1,
        share=HDFS_SHARE,
    )


def generated_sessions(events: int, attack_share: float, seed: int) -> SessionSet:
    """Generated sessions whose anomalies are normal work in another order: the seed makes the company.

    An event's token is its type and operation; what training had less than 20 times is token 0.
    """
    data = generate_events(EventConfig(num_events=events, attack_share=attack_share, seed=seed))
    kind = data.frame["type_uid"].astype("str") + " " + data.frame["api.operation"].fillna("")
    counts = kind.iloc[data.split["train"]].value_counts()
    names = counts.index[counts >= 20]
    tokens = 1 + names.get_indexer(pd.Index(kind))  # an unknown name has the place -1
    session = pd.factorize(data.labels["incident"])[0]
    parts: dict[str, tuple[list[np.ndarray], np.ndarray]] = {}
    for part in ("train", "validation", "test"):
        rows = data.split[part]
        shape = data.labels["shape"].iloc[rows].groupby(session[rows]).first()
        wanted = (shape.isna() | (shape == "order")).to_numpy()
        every = zip(by_session(tokens[rows], session[rows]), wanted, strict=True)
        parts[part] = [own for own, keep in every if keep], (shape[wanted] == "order").to_numpy()
    count = len(parts["validation"][0])
    abnormal = np.concatenate([parts["validation"][1], parts["test"][1]])
    return SessionSet(
        learn=parts["train"][0],
        others=parts["validation"][0] + parts["test"][0],
        abnormal=abnormal,
        test=np.arange(len(abnormal)) >= count,
        num_tokens=len(names) + 1,
    )
