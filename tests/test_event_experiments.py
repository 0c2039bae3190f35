from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from companion.compute import Compute
from companion.experiments import event_detection, get_experiment, self_supervised
from companion.experiments.base import Context
from companion.experiments.event_data import Recipe, prepared, train
from companion.objectives.event_features import field_family
from companion.runs import SeedResult

SMOKE_DATA = get_experiment("self_supervised").scales["smoke"].data
CONTEXT = Context(Compute(torch.device("cpu"), None), progress=False)


@pytest.fixture(scope="module")
def events():
    return prepared("generated", SMOKE_DATA, 0)


def test_a_seed_learns_from_its_own_share_of_the_normal_events(events):
    other = prepared("zeek", SMOKE_DATA, 1)
    for data in (events, other):
        every = data.events.split["train"]
        assert len(data.train) == round(0.8 * len(every))
        assert set(data.train) < set(every)
        assert not data.attacks[data.train].any()
        assert not data.attacks[data.calibration].any()
        assert not data.attacks[data.normal("test")].any()
    assert set(other.train) != set(prepared("zeek", SMOKE_DATA, 2).train)


def test_the_lookup_is_that_of_a_loop(events):
    encoder = events.features.fitted
    field = "actor.user.uid"
    columns = dict(zip(encoder.categorical, events.categorical.numpy().T, strict=True))
    target, rows = columns[field], events.normal("validation")
    other, guesses, common = self_supervised.look_up(events, field, rows)
    assert field_family(other) != field_family(field)
    known = events.train[target[events.train] >= 2]
    assert common == pd.Series(target[known]).mode()[0]
    if other in columns:
        table = pd.Series(target[known]).groupby(columns[other][known]).agg(lambda own: own.mode()[0])
        seen = np.isin(columns[other][rows], table.index)
        right = table.reindex(columns[other][rows][seen]).to_numpy() == target[rows][seen]
        assert abs(right.mean() - (guesses[seen] == target[rows][seen]).mean()) < 0.02  # but for ties
        assert (guesses[~seen] == common).all()


def test_the_net_does_not_see_what_it_is_to_guess(events):
    net = train(events, Recipe(num_steps=0, d_model=8), 0, CONTEXT, "net")
    rows, field = events.normal("validation")[:50], "api.operation"
    guesses = self_supervised.guess(net, events, field, rows)
    hidden = [field_family(name) == field_family(field) for name in events.features.fitted.categorical]
    changed = replace(events, categorical=events.categorical.clone().index_fill(1, _where(hidden), 0))
    assert torch.equal(guesses, self_supervised.guess(net, changed, field, rows))
    assert (guesses >= 2).all()


def _where(flags):
    return torch.tensor(flags).nonzero().flatten()


@pytest.mark.parametrize("recipe", [Recipe(d_model=8), Recipe(objective="contrastive")])
def test_a_net_is_trained_and_its_end_is_set_on_calibration_events(events, recipe):
    recipe, result = recipe.model_copy(update={"num_steps": 3}), SeedResult(seed=0)
    train(events, recipe, 0, CONTEXT, "generated.net", result)
    assert len(result.curves["generated.net.loss"]) == len(result.curves["generated.net.held_out_loss"]) == 3


def test_other_shapes_and_orders_are_not_judged(events):
    labels = events.events.labels.iloc[events.events.split["test"]]
    for scope in ((), ("shape", "context"), ("attack", labels["attack"].dropna().iloc[0])):
        keep, wanted = event_detection.judged(events, "test", *scope)
        judged = labels[keep]
        assert judged["attack"].isna().sum() == labels["attack"].isna().sum() == (~wanted).sum()
        assert (judged["shape"][wanted] != "order").all() or scope[:1] == ("attack",)
        if scope:
            assert (judged[scope[0]][wanted] == scope[1]).all()


def test_twenty_alerts_a_day_by_hand(events):
    split = events.events.split | {"test": np.arange(6)}
    frame = pd.DataFrame({"time": pd.array([0, 1, 2, 3, 4, 86_400_000], dtype="Int64")})
    labels = pd.DataFrame({"attack": ["x", None, None, "x", "x", None], "incident": list("anobbn")})
    data = replace(
        events,
        events=replace(events.events, split=split, frame=frame, labels=labels),
        entities=np.array(list("pppqrs"), dtype=object),
    )
    scores = np.array([1.0, 9.0, 0.0, 5.0, 2.0, 3.0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(event_detection, "ALERTS", 2)  # entities p (9) and q (5); the threshold is 3, that of s
        assert event_detection.at_alerts(data, scores) == {"found": 0.5, "right": 1.0}
        assert event_detection.at_alerts(data, -scores) == {"found": 1.0, "right": 1.0}  # p and r
