from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from companion.data.ocsf_synthetic import EventConfig, generate_events
from companion.data.sessions import UNSEEN, EventTokens, sessions


@pytest.fixture(scope="module")
def events():
    return generate_events(EventConfig(num_events=4000))


def made(times, **columns):
    return pd.DataFrame({"time": times} | {name.replace("__", "."): v for name, v in columns.items()})


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 60), st.sampled_from("ab-"), st.sampled_from("xy-")), max_size=40))
def test_sessions_are_those_of_a_loop(rows):
    frame = made(
        [1000 * t for t, _, _ in rows],
        session__uid=pd.array([None if s == "-" else s for _, s, _ in rows], dtype="str"),
        user__uid=pd.array([None if u == "-" else u for _, _, u in rows], dtype="str"),
    )
    last, number, expected, count = {}, {}, {}, 0
    for row in sorted(range(len(rows)), key=lambda i: (rows[i][0], i)):
        time, session, user = rows[row]
        key = ("session", session) if session != "-" else ("user", user)
        if key not in last or time - last[key] > 10:
            number[key], count = count, count + 1
        last[key], expected[row] = time, number[key]
    found = sessions(frame, max_gap_seconds=10)
    assert found.dtype == np.int64
    assert found.tolist() == [expected[row] for row in range(len(rows))]


def test_sessions_of_generated_events_hold_one_true_session(events):
    found = sessions(events.frame)
    named = events.frame["actor.session.uid"].notna() | events.frame["session.uid"].notna()
    true = events.labels["session"].to_numpy()
    pairs = pd.DataFrame({"found": found, "true": true})[named.to_numpy()].drop_duplicates()
    assert not pairs["found"].duplicated().any()
    assert np.unique(found).tolist() == list(range(found.max() + 1))


def test_the_first_name_counts_and_a_session_is_no_entity():
    frame = made(
        [0, 1, 2, 3],
        actor__session__uid=["a", None, None, None],
        session__uid=["b", "a", None, None],
        user__uid=["u", "u", "a", None],
    )
    assert sessions(frame).tolist() == [0, 0, 1, 2]
    assert sessions(frame[["time", "session.uid"]]).tolist() == [0, 1, 2, 2]
    assert sessions(frame[["time", "user.uid"]]).tolist() == [0, 0, 1, 2]
    assert sessions(frame.iloc[:0]).tolist() == []


def test_tokens_are_combinations_and_rare_ones_are_shortened():
    frame = pd.DataFrame(
        {"a": [1] * 6 + [2] * 4 + [3], "b": ["x"] * 3 + ["y"] * 2 + ["z"] + ["x"] * 2 + ["y"] * 2 + ["x"]}
    )
    tokens = EventTokens(("a", "b"), min_count=3).fit(frame)
    assert tokens.names == [(), ("1",), ("1", "x"), ("2",)]
    assert len(tokens) == 4
    assert tokens.transform(frame).tolist() == [2, 2, 2, 1, 1, 1, 3, 3, 3, 3, UNSEEN]
    later = pd.DataFrame({"a": [1.0, 1.0, np.nan, 9.0], "b": ["x", "new", "x", None], "c": 0})
    assert tokens.transform(later).tolist() == [2, 1, UNSEEN, UNSEEN]
    assert tokens.transform(later[["a"]]).tolist() == [1, 1, UNSEEN, UNSEEN]
    assert tokens.transform(later.iloc[:0]).tolist() == []


def test_every_token_has_enough_training_events(events):
    tokens = EventTokens(min_count=15).fit(events.frame)
    counts = np.bincount(tokens.transform(events.frame), minlength=len(tokens))
    assert (counts[1:] >= 15).all()
    assert counts[UNSEEN] < 0.05 * len(events.frame)
    assert ("600301", "1", "Deploy") in EventTokens(min_count=1).fit(events.frame).names


def test_events_that_nothing_names_are_refused(events):
    with pytest.raises(ValueError, match="name an entity"):
        sessions(made([0, 1]))
    with pytest.raises(ValueError, match="none of the fields"):
        EventTokens(("no.such",)).fit(events.frame)
