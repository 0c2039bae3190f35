"""Models of sessions, those that count and those that learn, against their formulas and loops."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from companion.compute import pick_compute
from companion.data.sessions import SessionSet, generated_sessions, hdfs_sessions
from companion.detection.metrics import roc_auc
from companion.detection.sequences import BagOfEvents, NgramModel, Precedence
from companion.experiments.event_sequences import measure
from companion.models.lstm import NextEventLSTM, NextEventTransformer
from companion.objectives.next_event import NextEvent, judge, session_rows

CPU = pick_compute("cpu", "float32")
many = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=7), min_size=1, max_size=8)
SESSIONS = [[1, 2, 2, 3, 0], [3], [2, 1, 0]]


def arrays(sessions):
    return [np.array(session, dtype=np.int64) for session in sessions]


def test_ngrams_have_the_probabilities_of_the_formula():
    model = NgramModel(2, num_tokens=2).fit(arrays([[0, 1], [0, 0, 1]]))
    # behind what was never seen: seven tokens of three kinds, the ends among them, and 1/3 for each below
    one = {token: (count + 3 * 1 / 3) / (7 + 3) for token, count in ((0, 3), (1, 2), (2, 2))}
    assert [model.probability(token, [9]) for token in range(3)] == pytest.approx(list(one.values()))
    after_0 = [(count + 2 * one[token]) / (3 + 2) for token, count in ((0, 1), (1, 2), (2, 0))]
    assert [model.probability(token, [0]) for token in range(3)] == pytest.approx(after_0)
    start = (2 + 1 * one[0]) / (2 + 1)  # both sessions begin with 0, and no other token
    end = (0 + 2 * one[2]) / (3 + 2)
    np.testing.assert_allclose(model.surprises(np.array([0])), [-np.log(start), -np.log(end)])
    assert model.score(arrays([[0]]))[0] == pytest.approx(-np.log(end))


@settings(max_examples=40, deadline=None)
@given(many, st.integers(1, 4))
def test_the_probabilities_of_ngrams_sum_to_one(training, order):
    model, history = NgramModel(order, 4).fit(arrays(training)), [-1] * order + training[0][:1]
    assert sum(model.probability(token, history) for token in range(5)) == pytest.approx(1)


def test_precedence_is_the_least_likely_relation_of_any_pair():
    normal = [[0, 1, 2], [0, 0, 1], [0, 1, 0], [2, 0]]  # 0 before 1 twice and mixed once, 1 before 2 once ...
    asked = [[0, 1], [1, 0], [1, 0, 1], [2, 1], [0, 2, 1], [2, 2], [3, 1]]
    chances = [3 / 6, 1 / 6, 2 / 6, 1 / 4, 1 / 4, 1, 1 / 3]
    scores = Precedence().fit(arrays(normal)).score(arrays(asked))
    np.testing.assert_allclose(scores, -np.log(chances), atol=1e-12)


def test_a_bag_is_blind_to_the_order_and_sees_another_count():
    bag = BagOfEvents(4, neighbors=2).fit(arrays([[0, 1, 2]] * 3))
    same, more = bag.score(arrays([[2, 0, 1], [0, 1, 2, 2]]))
    assert same == pytest.approx(0, abs=1e-6)
    assert more == pytest.approx(np.sqrt(2) - 1, abs=1e-6)


@pytest.mark.parametrize("make", [NextEventLSTM, NextEventTransformer])
def test_an_event_is_judged_by_those_before_it_alone(make):
    net = make(5).eval()
    tokens = torch.randint(5, (3, 7))
    changed = tokens.clone()
    changed[:, 4:] = (changed[:, 4:] + 1) % 5
    torch.testing.assert_close(net(changed)[:, :5], net(tokens)[:, :5])
    assert not torch.allclose(net(changed)[:, 5], net(tokens)[:, 5], atol=1e-4)
    torch.testing.assert_close(net(tokens)[:, :4], net(tokens[:, :4]))
    torch.testing.assert_close(net(tokens)[:, 0], net(changed.flip(0))[:, 0])  # nothing stands before


@pytest.mark.parametrize("history", [None, 1, 3])
@pytest.mark.parametrize("make", [NextEventLSTM, NextEventTransformer])
def test_events_are_judged_as_one_by_one(make, history):
    net, rows = make(5).eval(), session_rows(arrays(SESSIONS), 4)
    nats, rank = judge(net, rows, NextEvent(history))
    losses = []
    for row, session in enumerate(SESSIONS):
        for t, token in enumerate([*session, 4]):
            past = session[:t]
            if history is not None:  # earlier events are cut off; where there are none, there is padding
                past = ([-1] * history + past)[-history:]
            logits = net(torch.tensor([[*past, 0]]))[0, -1]
            losses.append(-logits.log_softmax(dim=0)[token].item())
            assert nats[row, t] == pytest.approx(losses[-1], abs=1e-5)
            rivals = logits if token == 4 else logits[:4]
            assert rank[row, t] == 1 + (rivals > logits[token]).sum().item()
        assert (nats[row, len(session) + 1 :] == 0).all()
    loss = NextEvent(history)(net, (rows,), None)["loss"]
    assert loss.item() == pytest.approx(np.mean(losses), abs=1e-5)


@pytest.mark.filterwarnings("ignore:.*synthetic")
def test_the_parts_of_hdfs_are_drawn_and_hold_each_session_once():
    first, again, other = (hdfs_sessions(500, 100, seed) for seed in (0, 0, 1))
    assert [len(first.learn), first.held.sum(), (~first.test & first.abnormal).sum()] == [500, 100, 100]
    told = [sorted(own.tobytes() for own in data.learn + data.others) for data in (first, other)]
    assert told[0] == told[1]
    assert all(np.array_equal(a, b) for a, b in zip(first.others, again.others, strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(first.learn, other.learn, strict=True))


def test_generated_anomalies_are_made_of_what_normal_sessions_are_made_of():
    data = generated_sessions(6000, 0.2, 0)
    bag, pairs = (
        model.fit(data.learn).score(data.others) for model in (BagOfEvents(data.num_tokens), Precedence())
    )
    assert roc_auc(data.abnormal, pairs) > 0.95 > 0.8 > roc_auc(data.abnormal, bag)


def test_a_measure_weighs_anomalies_as_the_whole_log_has_them():
    abnormal = np.array([False] * 4 + [True] * 2 + [False] * 10 + [True] * 10)
    test = np.arange(26) >= 6
    data = SessionSet([], [], abnormal, test, 1, share=0.1)
    scores = np.array([0, 0, 0, 0, 9, 9, *range(10), *[9] * 8, 0, 0], dtype=float)
    found = measure(data, scores, np.ones(26, dtype=bool), ranks=True)
    precision = 0.1 * 0.8 / (0.1 * 0.8 + 0.9 * 0.1)  # at the threshold 9, by validation: one normal session
    assert found["f1"] == pytest.approx(2 * precision * 0.8 / (precision + 0.8))
    assert found["f1_published"] == 0  # no rank above 9
    assert found["validation_pr_auc"] == pytest.approx(1)
