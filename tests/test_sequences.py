from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from companion.compute import pick_compute
from companion.models.lstm import NextEventLSTM
from companion.objectives import next_event as learning
from companion.objectives.next_event import PADDING, START, NextEvent, pieces
from tests.toy_sessions import flat

CPU = pick_compute("cpu", "float32")
SMALL = {"hidden": 16, "batch_size": 16, "lr": 0.02, "dropout": 0.0}
TABLE = np.random.default_rng(7).normal(size=(8, 5)).astype(np.float32)


def rows_of(sessions, most=99):
    tokens, numbers = flat(sessions)
    lengths = torch.tensor([len(s) for s in sessions])
    return torch.from_numpy(tokens), pieces(
        torch.arange(len(numbers)), lengths.cumsum(0) - lengths, lengths, most
    )


# ---------------------------------------------------------------- the net


@pytest.mark.parametrize("context", [0, 3])
def test_an_event_is_judged_by_those_before_it_alone(context):
    net = NextEventLSTM(4, 6, hidden=8, num_context=context).eval()
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
def test_surprises_are_those_computed_one_by_one(task, monkeypatch):
    sessions = [[1, 2, 2, 3, 0], [3], [2, 1]]
    tokens, rows = rows_of(sessions)
    data = NextEvent(tokens, 4, task=task)
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
                contexts.append(torch.cat([past] + [left] * (task == "order")))
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
        data = NextEvent(tokens, 4, vectors, task)
        net = NextEventLSTM(data.widths[0], 4, hidden=6, num_context=data.widths[1]).eval()
        wide = F.pad(rows, (0, 40), value=PADDING)
        torch.testing.assert_close(data.surprises(net, wide)[:, :3], data.surprises(net, rows))
        alone = [data.surprises(net, row[None, : 1 + n])[0] for row, n in zip(rows, (3, 1, 2), strict=True)]
        together = data.surprises(net, rows)
        torch.testing.assert_close(torch.cat(alone), together[rows[:, 1:] >= 0])
        data(net, (wide,), torch.Generator().manual_seed(0))["loss"].backward()
        assert all(torch.isfinite(p.grad).all() for p in net.parameters())
