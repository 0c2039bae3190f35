"""Sessions of a small grammar: work in a fixed order, with noise between."""

from __future__ import annotations

import numpy as np

WORK, NOISE = (1, 2, 3, 4), (5, 6, 7)


def flat(sessions):
    """Lists of tokens as tokens (N,) and session numbers (N,)."""
    lengths = [len(session) for session in sessions]
    return np.concatenate([np.array(s, dtype=np.int64) for s in sessions]), np.repeat(
        range(len(lengths)), lengths
    )


def toy(count, seed=0, wrong=0):
    """Tokens, session numbers, and for each session whether its order is wrong (the last ones' is)."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        work = list(WORK) if number < count - wrong else [1, 4, 3, 2]
        places = np.sort(rng.choice(9, len(work), replace=False))
        session = rng.choice(NOISE, 9)
        session[places] = work
        made.append(session.tolist())
    tokens, sessions = flat(made)
    return tokens, sessions, np.arange(count) >= count - wrong
