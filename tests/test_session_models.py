"""Models of sessions that count, against their formulas and loops."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from companion.detection.metrics import roc_auc
from companion.detection.sequences import (
    BagOfEvents,
    NgramModel,
    Precedence,
    lay_out,
    session_scores,
)
from tests.toy_sessions import flat, toy

many = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=7), min_size=1, max_size=8)
EMPTY = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)


def by_hand(training, order, size):
    """Witten and Bell's recursion, as it is written."""
    after = defaultdict(Counter)
    for session in training:
        padded = ["start"] * (order - 1) + session
        for t in range(len(session)):
            here = t + order - 1
            for k in range(order):
                after[tuple(padded[here - k : here])][padded[here]] += 1

    def chance(token, history):
        shorter = chance(token, history[1:]) if history else 1 / size
        seen = after[tuple(history)]
        return (seen[token] + len(seen) * shorter) / (seen.total() + len(seen)) if seen else shorter

    return chance


@settings(max_examples=40, deadline=None)
@given(many, many, st.integers(1, 4))
def test_an_ngram_is_that_of_the_formula(training, others, order):
    model = NgramModel(order, num_tokens=4).fit(*flat(training))
    chance = by_hand(training, order, 4)
    expected = []
    for session in others:
        padded = ["start"] * (order - 1) + session
        for t, token in enumerate(session):
            expected.append(-np.log(chance(token, padded[t : t + order - 1])))
    np.testing.assert_allclose(model.surprise(*flat(others)), expected, rtol=1e-9)
    for t in range(len(others[0])):
        distribution = [model.probability(token, [-1] * order + others[0][:t]) for token in range(4)]
        assert sum(distribution) == pytest.approx(1)
        assert min(distribution) > 0


@settings(max_examples=25, deadline=None)
@given(many, many, st.integers(1, 3))
def test_an_order_is_judged_among_what_is_left(training, others, order):
    plain = NgramModel(order, num_tokens=4).fit(*flat(training))
    judge = NgramModel(order, "order", num_tokens=4).fit(*flat(training))
    expected = []
    for session in others:
        for t, token in enumerate(session):
            chances, left = (
                [plain.probability(w, [-1] * order + session[:t]) for w in range(4)],
                Counter(session[t:]),
            )
            expected.append(
                -np.log(left[token] * chances[token] / sum(n * chances[w] for w, n in left.items()))
            )
    np.testing.assert_allclose(judge.surprise(*flat(others)), expected, rtol=1e-9, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(many, many)
def test_precedence_is_that_of_a_loop(training, others):
    def relations(session):
        for a, b in combinations(sorted(set(session)), 2):
            where = {c: [i for i, token in enumerate(session) if token == c] for c in (a, b)}
            wholly = (max(where[a]) < min(where[b]), max(where[b]) < min(where[a]))
            yield (a, b), wholly.index(True) if any(wholly) else 2

    training = [*training, [0, 1, 2, 3]]
    counts = defaultdict(Counter)
    for session in training:
        for pair, relation in relations(session):
            counts[pair][relation] += 1
    expected = [
        max((-np.log((counts[p][r] + 1) / (counts[p].total() + 3)) for p, r in relations(session)), default=0)
        for session in others
    ]
    np.testing.assert_allclose(Precedence().fit(*flat(training)).score(*flat(others)), expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("model", "least"),
    [(NgramModel(2), 0.8), (NgramModel(3), 0.9), (NgramModel(3, "order"), 0.95), (Precedence(), 0.95)],
)
def test_a_wrong_order_scores_higher(model, least):
    tokens, sessions, _ = toy(300)
    other = toy(300, seed=1, wrong=100)
    assert roc_auc(other[2], model.fit(tokens, sessions).score(*other[:2])) > least


def test_a_bag_sees_what_is_there_and_not_in_which_order():
    tokens, sessions, _ = toy(300)
    bag = BagOfEvents().fit(tokens, sessions)
    other = toy(300, seed=1, wrong=100)
    scores = bag.score(*other[:2])
    assert 0.35 < roc_auc(other[2], scores) < 0.65
    shuffled = np.random.default_rng(0).permutation(len(other[0]))
    np.testing.assert_allclose(bag.score(other[0][shuffled], other[1][shuffled]), scores)
    assert bag.score(*flat([[99] * 5]))[0] > scores.max()


@pytest.mark.parametrize("model", [NgramModel(3), NgramModel(2, "order"), BagOfEvents(), Precedence()])
def test_interleaved_short_and_unknown_sessions_have_a_score(model):
    tokens, sessions, _ = toy(80)
    model.fit(tokens, sessions)
    scores = model.score(tokens, sessions)
    assert scores.shape == (80,)
    assert scores.dtype == np.float64
    order = np.argsort(np.arange(len(tokens)) % 9, kind="stable")  # all first events, all second ones, ...
    np.testing.assert_allclose(model.score(tokens[order], 7 * sessions[order] + 3), scores)
    assert np.isfinite(model.score(*flat([[2], [10**9], [1] * 5000]))).all()
    assert model.score(*EMPTY).shape == (0,)


@pytest.mark.parametrize("model", [NgramModel(), BagOfEvents(), Precedence()])
def test_tokens_that_are_none_are_refused(model):
    tokens, sessions, _ = toy(20)
    for bad in ((tokens, sessions[1:]), (tokens.astype(float), sessions), (tokens, sessions[:, None])):
        with pytest.raises(ValueError, match=r"integers \(N,\)"):
            model.fit(*bad)
    with pytest.raises(ValueError, match="from 0"):
        model.fit(tokens - 5, sessions)


def test_scores_are_means_maxima_and_means_of_the_top():
    surprise, sessions = np.array([1.0, 9.0, 5.0, 2.0, 4.0]), np.array([5, 1, 5, 5, 5])
    for aggregate, top, expected in (("mean", 1, [9, 3]), ("max", 1, [9, 5]), ("top", 2, [9, 4.5])):
        assert session_scores(surprise, sessions, aggregate, top).tolist() == expected
    assert lay_out(sessions).names.tolist() == [1, 5]
    assert session_scores(np.empty(0), np.empty(0)).shape == (0,)
