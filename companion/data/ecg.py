"""ECG5000, the heartbeats of one patient, and a labelled synthetic stand-in."""

import hashlib
import io
from dataclasses import dataclass

import numpy as np

from companion.data.download import REGISTRY, Origin, read_or_warn, read_published

ECG5000_TRAIN, ECG5000_TEST = REGISTRY["ecg5000-train"], REGISTRY["ecg5000-test"]
LENGTH = 140
NORMAL = 1
CLASS_NAMES = (
    "normal", "R-on-T premature ventricular contraction", "premature ventricular contraction",
    "supraventricular premature or ectopic beat", "unclassified beat",
)  # fmt: skip


@dataclass(frozen=True)
class Beats(Origin):
    """Heartbeats for one-class learning, split; a beat is float32 (140,), a class counts from 1."""

    name: str
    train: np.ndarray  # (N, 140), normal beats only
    validation: np.ndarray  # for choices and thresholds
    test: np.ndarray  # to be touched once
    validation_classes: np.ndarray  # int64 (N,)
    test_classes: np.ndarray

    @property
    def validation_labels(self) -> np.ndarray:
        """Labels, int64 (N,), 0 for normal, 1 for every other class."""
        return np.asarray(self.validation_classes != NORMAL, dtype=np.int64)

    @property
    def test_labels(self) -> np.ndarray:
        """Of the test set."""
        return np.asarray(self.test_classes != NORMAL, dtype=np.int64)


def load_ecg5000(*, validation_normals: int = 1000) -> Beats:
    """ECG5000: beats of 140 samples, each with mean 0 and standard deviation 1 as published.

    All 292 normal beats of the official training file are for training. Its 208 other beats are for
    validation, together with ``validation_normals`` normal beats drawn from the official test file: the
    training file alone has too few normals to promise a false-positive rate of 0.1 %. The rest of the test
    file is the test set. The two files share no beat.
    """
    contents, about = read_or_warn("ECG5000", "beats", read_published, ECG5000_TRAIN, ECG5000_TEST)
    if contents:
        train, test = (np.loadtxt(io.BytesIO(file), dtype=np.float32, ndmin=2) for file in contents)
    else:
        train, test = synthetic_beats(500, seed=0), synthetic_beats(4500, seed=1)
    about["digest"] = hashlib.sha256(train.tobytes() + test.tobytes()).hexdigest()
    normals = np.flatnonzero(test[:, 0] == NORMAL)
    moved = np.sort(np.random.default_rng(0).choice(normals, validation_normals, replace=False))
    validation = np.concatenate([train[train[:, 0] != NORMAL], test[moved]])
    rest = np.delete(test, moved, axis=0)
    learn = train[train[:, 0] == NORMAL]
    known, held, new = (np.ascontiguousarray(part[:, 1:]) for part in (learn, validation, rest))
    one, other = (part[:, 0].astype(np.int64) for part in (validation, rest))
    return Beats("ecg5000", known, held, new, one, other, **about)


def synthetic_beats(num_beats: int, seed: int) -> np.ndarray:
    """Generated beats of five classes, a stand-in: float32 (N, 141), the class, from 1, then the samples.

    A beat is a sum of bumps, whose heights vary and depend on the class, under noise. The shares of the
    classes are those of ECG5000.
    """
    rng = np.random.default_rng(seed)
    classes = rng.choice(np.arange(1, 6), num_beats, p=[0.584, 0.353, 0.019, 0.039, 0.005])
    classes[: min(6, num_beats)] = (1, 1, 2, 3, 4, 5)[: min(6, num_beats)]  # each class is there
    place, width = np.array([[6.0, 60.0, 103.0, 134.0], [4.0, 22.0, 8.0, 4.0]])[..., None]  # of four bumps
    bumps = np.exp(-(((np.arange(LENGTH) - place) / width) ** 2))
    heights = np.random.default_rng(0).normal(scale=2, size=(6, 4))  # by class
    beats = heights[classes] * np.exp(0.15 * rng.normal(size=(num_beats, 4))) @ bumps
    beats += 0.12 * rng.normal(size=beats.shape)
    beats = (beats - beats.mean(axis=1, keepdims=True)) / beats.std(axis=1, keepdims=True)
    return np.column_stack([classes, beats]).astype(np.float32)
