from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.base import clone
from torch import nn

from companion import training as loop
from companion.compute import pick_compute
from companion.detection.metrics import roc_auc
from companion.detection.sequences import SequenceError
from companion.detection.thresholds import ThresholdError
from companion.detection.vectors import VectorError
from companion.estimators.sequences import SequenceAnomalyDetector
from companion.models.lstm import NextEventLSTM
from companion.objectives import next_event as learning
from companion.objectives.next_event import PADDING, START, NextEvent, pieces
from companion.training import CheckpointError, save_weights
from tests.toy_sessions import flat, toy

CPU = pick_compute("cpu", "float32")
SMALL = {"hidden": 16, "batch_size": 16, "lr": 0.02, "dropout": 0.0}
TABLE = np.random.default_rng(7).normal(size=(8, 5)).astype(np.float32)


@pytest.fixture(scope="module")
def fitted():
    return SequenceAnomalyDetector(task="order", **SMALL).fit(None, *toy(400)[:2], epochs=12, compute=CPU)


def rows_of(sessions, most=99):
    tokens, numbers = flat(sessions)
    lengths = torch.tensor([len(s) for s in sessions])
    return torch.from_numpy(tokens), pieces(
        torch.arange(len(numbers)), lengths.cumsum(0) - lengths, lengths, most
    )


# ---------------------------------------------------------------- the net


@pytest.mark.parametrize(("layers", "context"), [(1, 0), (2, 3)])
def test_an_event_is_judged_by_those_before_it_alone(layers, context):
    net = NextEventLSTM(4, 6, hidden=8, layers=layers, num_context=context).eval()
    vectors, told = torch.randn(3, 7, 4), torch.randn(3, 7, context)
    logits = net(vectors, told)[0]
    assert logits.shape == (3, 7, 6)
    changed, later = vectors.clone(), told.clone()
    changed[:, 4:] = 1e3
    later[:, 5:] = 1e3
    torch.testing.assert_close(net(changed, later)[0][:, :5], logits[:, :5])
    first = net(torch.randn(3, 1, 4), told[:, :1])[0]
    torch.testing.assert_close(first, logits[:, :1])  # the first event has nothing before it
    begin, state = net(vectors[:, :3], told[:, :3])
    rest = net(vectors[:, 3:], told[:, 3:], vectors[:, 2], state)[0]
    torch.testing.assert_close(torch.cat([begin, rest], dim=1), logits)
    logits.square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())


def test_the_net_is_an_lstm_with_a_head():
    net = NextEventLSTM(4, 6, hidden=8).eval()
    nn.init.normal_(net.start)
    vectors = torch.randn(1, 3, 4)
    hidden = cell = torch.zeros(1, 8)
    w, u = net.lstm.weight_ih_l0, net.lstm.weight_hh_l0
    for t, x in enumerate([net.start[None], vectors[:, 0], vectors[:, 1]]):
        gates = x @ w.T + hidden @ u.T + net.lstm.bias_ih_l0 + net.lstm.bias_hh_l0
        i, f, g, o = gates.chunk(4, dim=1)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        hidden = o.sigmoid() * cell.tanh()
        torch.testing.assert_close(net(vectors)[0][:, t], net.head(hidden))


def test_impossible_nets_and_inputs_are_refused():
    for bad in ({"hidden": 0}, {"layers": 0}, {"dropout": 1.0}, {"num_context": -1}, {"num_tokens": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            NextEventLSTM(**{"num_features": 4, "num_tokens": 6} | bad)
    net = NextEventLSTM(4, 6, num_context=2)
    for vectors, context in (
        (torch.zeros(2, 3, 5), torch.zeros(2, 3, 2)),
        (torch.zeros(2, 0, 4), torch.zeros(2, 0, 2)),
        (torch.zeros(2, 3, 4), None),
    ):
        with pytest.raises(ValueError, match="need"):
            net(vectors, context)


# ---------------------------------------------------------------- the objective


def test_pieces_hold_every_event_once_and_the_one_before():
    lengths = torch.tensor([3, 1, 7])
    rows = pieces(torch.arange(11) + 100, lengths.cumsum(0) - lengths, lengths, 3)
    assert rows.tolist() == [
        [START, 100, 101, 102],
        [START, 103, PADDING, PADDING],
        [START, 104, 105, 106],
        [106, 107, 108, 109],
        [109, 110, PADDING, PADDING],
    ]


@pytest.mark.parametrize("task", ["next", "order"])
@pytest.mark.parametrize("memory", [True, False])
def test_surprises_are_those_computed_one_by_one(task, memory, monkeypatch):
    sessions = [[1, 2, 2, 3, 0], [3], [2, 1]]
    tokens, rows = rows_of(sessions)
    data = NextEvent(tokens, 4, task=task, memory=memory)
    net = NextEventLSTM(data.widths[0], 4, hidden=6, num_context=data.widths[1]).eval()
    nn.init.normal_(net.start)
    found = data.surprises(net, rows)
    for row, session in enumerate(sessions):
        for t, token in enumerate(session):
            seen = torch.bincount(torch.tensor(session[:t], dtype=torch.long), minlength=4).float()
            vectors = F.one_hot(torch.tensor([session]), 4).float()
            contexts = []
            for s in range(len(session)):
                past = torch.bincount(torch.tensor(session[:s], dtype=torch.long), minlength=4)
                left = torch.bincount(torch.tensor(session[s:]), minlength=4)
                contexts.append(torch.cat([past] * memory + [left] * (task == "order") + [past[:0]]))
            told = torch.stack(contexts)[None].float()
            logits = net(vectors, torch.where(told > 0, 1 + told.log(), 0.0))[0][0, t]
            chances = logits.softmax(dim=0)
            if task == "order":
                left = torch.bincount(torch.tensor(session), minlength=4) - seen
                chances = chances * left / (chances * left).sum()
            assert found[row, t].item() == pytest.approx(-chances[token].log().item(), abs=1e-5)
        assert (found[row, len(session) :] == 0).all()
    monkeypatch.setattr(learning, "STRETCH", 2)  # longer sessions go through the net in stretches
    torch.testing.assert_close(data.surprises(net, rows), found)
    events = (rows[:, 1:] >= 0).sum()
    loss = data(net, (rows,), None)["loss"]
    torch.testing.assert_close(loss, (found.sum() / events).float())


def test_nothing_of_the_padding_is_seen():
    tokens, rows = rows_of([[1, 2, 3], [2], [3, 1]])
    vectors = torch.randn(6, 5)
    for task in ("next", "order"):
        data = NextEvent(tokens, 4, vectors, task=task, input_dropout=0.3)
        net = NextEventLSTM(data.widths[0], 4, hidden=6, num_context=data.widths[1]).eval()
        wide = F.pad(rows, (0, 40), value=PADDING)
        torch.testing.assert_close(data.surprises(net, wide)[:, :3], data.surprises(net, rows))
        alone = [data.surprises(net, row[None, : 1 + n])[0] for row, n in zip(rows, (3, 1, 2), strict=True)]
        together = data.surprises(net, rows)
        torch.testing.assert_close(torch.cat(alone), together[rows[:, 1:] >= 0])
        data(net, (wide,), torch.Generator().manual_seed(0))["loss"].backward()
        assert all(torch.isfinite(p.grad).all() for p in net.parameters())


def test_impossible_objectives_are_refused():
    tokens, rows = rows_of([[1, 2]])
    for bad in ({"one_hot": False}, {"task": "both"}, {"input_dropout": 1.0}):
        with pytest.raises(ValueError, match=r"vectors or one_hot|task"):
            NextEvent(tokens, 3, **bad)
    with pytest.raises(TypeError, match="NextEventLSTM"):
        NextEvent(tokens, 3)(nn.Linear(1, 1), (rows,), None)


# ---------------------------------------------------------------- the estimator


@pytest.mark.parametrize(("task", "inputs"), [("next", "tokens"), ("next", "vectors"), ("order", "both")])
def test_it_finds_an_order_that_it_never_saw(task, inputs):
    tokens, sessions, _ = toy(400)
    other, numbers, wrong = toy(300, seed=1, wrong=100)
    model = SequenceAnomalyDetector(inputs, task=task, **SMALL)
    model.fit(TABLE[tokens], tokens, sessions, epochs=12, compute=CPU)
    assert roc_auc(wrong, model.score(TABLE[other], other, numbers)) > 0.95
    losses = model.history_.evaluations["loss"]
    assert losses[-1] < 0.98 * losses[0]


def test_interleaved_sessions_are_scored_as_if_alone(fitted):
    tokens, sessions, _ = toy(40, seed=3)
    scores, surprise = fitted.score(None, tokens, sessions), fitted.surprise(None, tokens, sessions)
    assert scores.shape == (40,)
    assert scores.dtype == surprise.dtype == np.float64
    order = np.argsort(np.arange(len(tokens)) % 9, kind="stable")
    mixed = fitted.surprise(None, tokens[order], 5 * sessions[order] + 2)
    np.testing.assert_allclose(mixed, surprise[order], atol=1e-5)
    alone = np.concatenate(
        [fitted.score(None, tokens[sessions == s], sessions[sessions == s]) for s in range(40)]
    )
    np.testing.assert_allclose(alone, scores, atol=1e-5)


def test_one_event_very_many_and_unknown_ones_have_a_score():
    tokens, sessions, _ = toy(60)
    for task in ("next", "order"):
        model = SequenceAnomalyDetector(task=task, max_length=4, num_tokens=9, **SMALL)
        model.fit(None, tokens, sessions, epochs=2, compute=CPU)
        odd = flat([[1], [2, 10**9], list(range(8)) * 200])
        assert np.isfinite(model.score(None, *odd)).all()
        assert np.isfinite(model.surprise(None, *odd)).all()
        assert model.score(None, np.empty(0, dtype=int), np.empty(0, dtype=int)).shape == (0,)
        unknown, unseen = flat([[2, 10**9]]), flat([[2, 0]])
        assert np.array_equal(model.score(None, *unknown), model.score(None, *unseen))


def test_the_same_seed_gives_the_same_model_and_leaves_the_global_one_alone():
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    data = toy(60)[:2]
    models = [
        SequenceAnomalyDetector(**SMALL | {"dropout": 0.2}, input_dropout=0.1, seed=seed).fit(
            None, *data, epochs=2, compute=CPU
        )
        for seed in (0, 0, 1)
    ]
    scores = [model.score(None, *data) for model in models]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert np.array_equal(scores[0], scores[1])
    assert not np.array_equal(scores[0], scores[2])


def test_a_stopped_fit_continues_to_the_same_model(tmp_path, monkeypatch):
    def fit(checkpoint):
        model = SequenceAnomalyDetector(**SMALL | {"dropout": 0.2})
        return model.fit(None, *toy(100)[:2], epochs=12, checkpoint=checkpoint, compute=CPU)

    whole = fit(None)
    real, path = loop._Run.train_step, tmp_path / "fit.safetensors"

    def killed(self, *arguments):
        if self.step == 57:
            raise KeyboardInterrupt
        real(self, *arguments)

    monkeypatch.setattr(loop._Run, "train_step", killed)
    with pytest.raises(KeyboardInterrupt):
        fit(path)
    monkeypatch.undo()
    again = fit(path)
    assert np.array_equal(again.score(None, *toy(9)[:2]), whole.score(None, *toy(9)[:2]))
    with pytest.raises(CheckpointError, match="another config"):
        SequenceAnomalyDetector(**SMALL).fit(None, *toy(90)[:2], epochs=12, checkpoint=path, compute=CPU)


def test_training_stops_early_and_takes_the_best_weights():
    model = SequenceAnomalyDetector(**SMALL | {"lr": 0.1, "hidden": 32}, patience=2)
    model.fit(None, *toy(60)[:2], epochs=40, compute=CPU)
    losses = model.history_.evaluations["loss"]
    assert len(losses) < 40
    assert losses.index(min(losses)) == len(losses) - 3
    free = SequenceAnomalyDetector(**SMALL).fit(None, *toy(60)[:2], epochs=2, validation=0, compute=CPU)
    assert free.history_.evaluations == {}


def test_a_saved_model_scores_the_same_to_the_last_bit(fitted, tmp_path):
    tokens, sessions, _ = toy(120, seed=5)
    path = tmp_path / "model.safetensors"
    other = SequenceAnomalyDetector("both", layers=2, seed=np.int64(3), **SMALL)
    other.fit(TABLE[tokens], tokens, sessions, epochs=1, compute=CPU)
    for model in (fitted, other):
        model.calibrate(TABLE[tokens], tokens, sessions, fpr=0.05)
        model.save(path)
        loaded = SequenceAnomalyDetector.load(path, CPU)
        given = TABLE[tokens], tokens, sessions
        assert np.array_equal(loaded.score(*given), model.score(*given))
        assert np.array_equal(loaded.predict(*given), model.predict(*given))
        assert loaded.get_params() == model.get_params()


def test_files_that_hold_no_model_are_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    with pytest.raises(CheckpointError, match="not a readable"):
        SequenceAnomalyDetector.load(path)
    save_weights(path, nn.Linear(1, 1))
    with pytest.raises(CheckpointError, match="holds no SequenceAnomalyDetector"):
        SequenceAnomalyDetector.load(path)
    for about, message in (({"version": 99}, "version 99"), ({"version": 1}, "can be read")):
        save_weights(path, nn.Linear(1, 1), kind="SequenceAnomalyDetector", about=json.dumps(about))
        with pytest.raises(CheckpointError, match=message):
            SequenceAnomalyDetector.load(path)


def test_a_threshold_keeps_its_rate(fitted):
    fitted.calibrate(None, *toy(1000, seed=8)[:2], fpr=0.05)
    assert fitted.predict(None, *toy(1000, seed=9)[:2]).mean() == pytest.approx(0.05, abs=0.03)
    with pytest.raises(ThresholdError, match="needs at least 999"):
        fitted.calibrate(None, *toy(100)[:2], fpr=0.001)


def test_its_parameters_can_be_looked_at_and_copied(fitted):
    twin = clone(fitted)
    assert twin.get_params() == fitted.get_params()
    assert not hasattr(twin, "net_")
    assert "task='order'" in repr(fitted)


@pytest.mark.parametrize(
    ("settings", "arguments", "message"),
    [
        ({"inputs": "all"}, {}, "inputs"),
        ({"task": "both"}, {}, "task"),
        ({"aggregate": "sum"}, {}, "aggregate"),
        ({"batch_size": 0}, {}, "batch_size"),
        ({"max_length": 0}, {}, "max_length"),
        ({}, {"epochs": 0}, "epoch"),
        ({}, {"validation": 1.0}, "validation"),
        ({}, {"sessions": np.zeros(180, dtype=int)}, "too few sessions"),
        ({}, {"sessions": np.zeros(9, dtype=int)}, "as many sessions"),
        ({}, {"tokens": np.zeros(180)}, r"integers \(N,\)"),
        ({"inputs": "vectors"}, {}, "need vectors"),
        ({"inputs": "vectors"}, {"vectors": np.zeros((3, 2))}, "as many vectors"),
        ({"inputs": "both"}, {"vectors": np.full((180, 2), np.nan)}, "NaN"),
        ({"inputs": "both"}, {"vectors": np.zeros(180)}, r"\(N, d\)"),
    ],
)
def test_impossible_fits_are_refused(settings, arguments, message):
    tokens, sessions, _ = toy(20)
    given = {"vectors": None, "tokens": tokens, "sessions": sessions, "epochs": 1} | arguments
    with pytest.raises((SequenceError, VectorError, ValueError), match=message):
        SequenceAnomalyDetector(**SMALL | settings).fit(**given, compute=CPU)


def test_an_unfitted_model_and_other_vectors_are_refused(tmp_path):
    tokens, sessions, _ = toy(20)
    model = SequenceAnomalyDetector("vectors", **SMALL)
    for call in (model.score, model.surprise, model.predict):
        with pytest.raises(SequenceError, match=r"fit the model|calibrate"):
            call(TABLE[tokens], tokens, sessions)
    with pytest.raises(SequenceError, match="fit the model"):
        model.save(tmp_path / "model.safetensors")
    model.fit(TABLE[tokens], tokens, sessions, epochs=1, compute=CPU)
    with pytest.raises(VectorError, match="5 numbers"):
        model.score(TABLE[tokens, :3], tokens, sessions)
    constant = model.fit(np.ones((180, 2)), tokens, sessions, epochs=1, compute=CPU)
    assert np.isfinite(constant.score(np.ones((180, 2)), tokens, sessions)).all()
