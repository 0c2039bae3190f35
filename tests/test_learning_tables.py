import numpy as np
import pytest
import torch
from torch import nn

from companion.compute import seed_everything
from companion.data.tables import synthetic_table
from companion.experiments import get_experiment, tables
from companion.experiments.tables import NetConfig
from companion.models.tabular import TabularResNet
from companion.objectives.tables import TableObjective, boosting, lightgbm, predict, prepare, realmlp, score
from companion.training import evaluate
from tests.small_data import CONTEXT, CPU


@pytest.fixture(scope="module", params=[None, 3], ids=["regression", "classes"])
def table(request):
    return prepare(synthetic_table("t", 600, num_categorical=2, num_classes=request.param))


class Fixed(nn.Module):
    """Gives the rows of a tensor, whatever is asked."""

    def __init__(self, output):
        super().__init__()
        self.output = output

    def forward(self, numerical, categorical):
        return self.output[: len(numerical)]


def test_only_training_rows_decide_the_encoding(table):
    raw = table.table
    changed = raw.frame.copy()
    changed.loc[np.concatenate([raw.validation, raw.test]), list(raw.numerical)] = 1e6
    other = prepare(type(raw)(**(raw.__dict__ | {"frame": changed})))
    for ours, theirs in zip(table.splits["train"], other.splits["train"], strict=True):
        assert torch.equal(ours, theirs)


def test_members_of_an_ensemble_learn_by_themselves_and_are_judged_together():
    objective = TableObjective(2)
    logits = torch.tensor([[[4.0, 0.0], [0.0, 1.0], [0.0, 1.0]]])  # three members, one row
    rows = (torch.zeros(1, 1), torch.zeros(1, 0, dtype=torch.long), torch.tensor([0]))
    scalars = objective(Fixed(logits), rows, None)
    by_hand = np.mean([-np.log(1 / (1 + np.exp(-4))), *[-np.log(1 / (1 + np.exp(1)))] * 2])
    assert scalars["loss"].item() == pytest.approx(by_hand, rel=1e-5)
    assert scalars["error"].item() == 0  # the mean of the probabilities is on the right side
    numbers = TableObjective(None)
    scalars = numbers(Fixed(torch.tensor([[[1.0], [3.0]]])), (*rows[:2], torch.tensor([2.0])), None)
    assert scalars["loss"].item() == pytest.approx(1)
    assert scalars["error"].item() == 0


def test_predictions_agree_with_the_evaluation_and_do_not_depend_on_the_batch(table):
    seed_everything(0)
    net = tables.build(table, "resnet", {"d_model": 8}, 0)
    whole = predict(net, table, "test", CPU)
    np.testing.assert_allclose(whole, predict(net, table, "test", CPU, batch_size=7), rtol=1e-4, atol=1e-5)
    error = evaluate(net, table.splits["test"], table.objective, CPU)["error"]
    if table.objective.num_classes is None:
        error = np.sqrt(error) * table.target_std
        assert score(table, "test", whole) == pytest.approx(error, rel=1e-4)
    else:
        assert 1 - score(table, "test", whole) == pytest.approx(error)


@pytest.mark.parametrize(
    "fit",
    [
        pytest.param(lambda t: boosting(t)[0], id="boosting"),
        pytest.param(lambda t: lightgbm(t, 20, 0), id="lightgbm"),
        pytest.param(lambda t: realmlp(t, 0, 64), id="realmlp", marks=pytest.mark.xdist_group("realmlp")),
    ],
)
def test_what_comes_from_a_library_beats_guessing(table, fit):
    predictions = fit(table)
    target = table.table.target
    if table.objective.num_classes is None:
        assert score(table, "test", predictions["test"]) < 0.8 * target[table.table.test].std()
    else:
        assert score(table, "test", predictions["test"]) > 0.45


def test_boosting_tells_how_many_trees_it_has(table):
    assert boosting(table)[1] > 1


@pytest.mark.parametrize("kind", ["resnet", "mlp", "tabm"])
def test_nets_learn_and_keep_their_best_epoch(table, kind):
    options = {"tabm": {"k": 4, "d_block": 32, "n_blocks": 2}}.get(kind, {"d_model": 32})
    net = NetConfig(kind=kind, options=options, num_epochs=8, lr=3e-3, batch_size=32)
    _, result = tables.train(table, net, 0, CONTEXT, "net")
    curve = result.curves["validation"]
    best = max if table.objective.num_classes else min
    assert result.metrics["validation"] == pytest.approx(best(curve), abs=1e-4)
    assert curve[int(result.metrics["best_epoch"]) - 1] == best(curve) != curve[0]


def test_an_ensemble_is_the_mean_of_its_members(small):
    config = get_experiment("tables").config("smoke").model_copy(update={"ensembles": (("mlp", "mlp"),)})
    result = tables.run(config, 0, CONTEXT)
    for dataset in tables.LOADERS:
        for split in ("validation", "test"):
            alone = result.metrics[f"{dataset}-mlp.{split}"]
            assert result.metrics[f"{dataset}-mlp+mlp.{split}"] == pytest.approx(alone)


@pytest.mark.parametrize("norm", ["layer", "batch"])
def test_a_plain_block_that_starts_at_the_identity_gives_its_norm(norm):
    net = TabularResNet(3, [], d_model=8, num_blocks=2, norm=norm, residual=False).eval()
    tables.start_near_identity(net, 0.0)
    x = torch.randn(5, 8)
    for block in net.blocks:
        torch.testing.assert_close(block(x), block.norm(x))
    away = TabularResNet(3, [], d_model=8, num_blocks=2, residual=False).eval()
    tables.start_near_identity(away, 0.1)
    assert not torch.allclose(away.blocks[0](x), away.blocks[0].norm(x), atol=1e-3)
