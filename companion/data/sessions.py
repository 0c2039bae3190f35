"""Labelled sessions: the tokens of their events, int64 (T,), in the order of their times."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from companion.data.download import REGISTRY, Origin, read_or_warn, read_published
from companion.data.synthetic_events import EventConfig, generate_events

HDFS_SHARE = 16_838 / 575_061  #: of anomalous sessions in the whole log; we have 4,855 of the normal ones
SESSION_COLUMNS = ("actor.session.uid", "session.uid")  #: of an event, the first of these that it has
HDFS = (REGISTRY["hdfs-normal"], REGISTRY["hdfs-abnormal"])


@dataclass(frozen=True)
class Sessions(Origin):
    """Sessions of tokens, whole ones labelled."""

    tokens: list[np.ndarray]  #: of each session, from 1
    abnormal: np.ndarray  #: bool (S,)


def load_hdfs() -> Sessions:
    """Sessions of HDFS: for each block of a file system the keys of the 2 to 284 lines that were logged.

    Of 4,855 normal sessions 839 are distinct, of 16,838 anomalous ones 4,123, and none is both; by the counts
    of their keys alone 62 and 391 are.
    """
    contents, about = read_or_warn("HDFS", "sessions", read_published, *HDFS)
    lines = [text.decode().splitlines() for text in contents or ()]
    parts = [[np.array(line.split(), dtype=np.int64) for line in part] for part in lines]
    normal, abnormal = parts or _synthetic_sessions()
    return Sessions(normal + abnormal, np.repeat([False, True], [len(normal), len(abnormal)]), **about)


def _synthetic_sessions() -> list[list[np.ndarray]]:
    """Generated sessions, normal and anomalous: steps of a chain, of which anomalous ones repeat some."""
    rng = np.random.default_rng(0)
    parts: list[list[np.ndarray]] = [[], []]
    for abnormal, count in enumerate((4_855, 1_000)):
        for size in rng.integers(8, 25, count):
            keys = np.sort(rng.integers(1, 21, size))
            parts[abnormal].append(np.repeat(keys, 1 + abnormal * (rng.random(size) < 0.2)))
    return parts


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

    The seed draws them as they come, as in the literature: many of the test are equal to a learned one.
    """
    data = load_hdfs()
    rng = np.random.default_rng(seed)
    normal, abnormal = (rng.permutation(np.flatnonzero(data.abnormal == kind)) for kind in (False, True))
    learn, held, rest = np.split(normal, [num_learn, num_learn + num_validation])
    others = np.concatenate([held, abnormal[:num_validation], rest, abnormal[num_validation:]])
    learned, later = ([data.tokens[i] for i in part] for part in (learn, others))
    test = np.arange(len(others)) >= 2 * num_validation
    num_tokens = int(np.concatenate(data.tokens).max()) + 1
    return SessionSet(learned, later, data.abnormal[others], test, num_tokens, HDFS_SHARE)


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
    parts = []
    for part in ("train", "validation", "test"):
        rows = data.split[part]
        shape = data.labels["shape"].iloc[rows].groupby(session[rows]).first()
        wanted = (shape.isna() | (shape == "order")).to_numpy()
        grouped = (own.to_numpy() for _, own in pd.Series(tokens[rows]).groupby(session[rows]))
        every = zip(grouped, wanted, strict=True)
        parts.append(([own for own, keep in every if keep], (shape[wanted] == "order").to_numpy()))
    (learn, _), (held, held_abnormal), (late, late_abnormal) = parts
    abnormal = np.concatenate([held_abnormal, late_abnormal])
    test = np.arange(len(abnormal)) >= len(held)
    return SessionSet(learn, held + late, abnormal, test, num_tokens=len(names) + 1)
