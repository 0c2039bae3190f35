import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from companion.compute import Compute, seed_everything
from companion.models.masked_resnet import RESOLUTION, SelfSupervisedResNet
from companion.objectives.selfsupervised import (
    Contrastive,
    FamilySurprise,
    MaskedFeatures,
    corrupt,
    draw_mask,
    embed,
    group_numbers,
    neighbor_purity,
    nll,
    nt_xent,
)
from companion.training import FitConfig, evaluate, fit

CPU = Compute(torch.device("cpu"), None)
MIXED = Compute(torch.device("cpu"), torch.bfloat16)
COLUMNS = [(3, [4, 7]), (3, []), (1, []), (1, [2])]


def rows(numbers, cardinalities, count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    numerical = torch.randn(count, numbers, generator=generator)
    categorical = torch.empty(count, len(cardinalities), dtype=torch.long)
    for i, cardinality in enumerate(cardinalities):
        categorical[:, i] = torch.randint(cardinality, (count,), generator=generator)
    return numerical, categorical


def make_net(numbers, cardinalities, **options):
    seed_everything(0)
    options = {"d_model": 16, "num_blocks": 1, "dropout": 0.0, "d_projection": 8} | options
    return SelfSupervisedResNet(numbers, cardinalities, **options)


def every_objective(training):
    return [MaskedFeatures(), Contrastive(*training)]


def test_every_row_has_something_hidden_and_the_rate_is_kept():
    generator = torch.Generator().manual_seed(0)
    few = draw_mask(2000, torch.arange(5), 1e-6, generator)
    assert (few.sum(dim=1) == 1).all()
    assert few.float().mean(dim=0).tolist() == pytest.approx([0.2] * 5, abs=0.04)  # no column is favoured
    many = draw_mask(2000, torch.arange(20), 0.3, generator)
    assert many.float().mean().item() == pytest.approx(0.3, abs=0.01)
    assert draw_mask(10, torch.arange(4), 1.0, generator).all()
    grouped = draw_mask(500, group_numbers([5, 5, 1], 3), 0.3, generator)
    assert torch.equal(grouped[:, 0], grouped[:, 1])
    assert (grouped[:, 0] != grouped[:, 2]).any()


def test_the_net_gets_the_index_of_the_mask_where_it_hides_and_nowhere_else():
    net, seen = make_net(1, [2, 5]), []
    for part in (net.numbers, net.categories):
        part.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    numerical, categorical = rows(1, [2, 5], 20)
    mask = draw_mask(20, torch.arange(3), 0.5, torch.Generator().manual_seed(0))
    net.embed(numerical, categorical, mask)
    numbers, categories = seen[0], seen[1] - torch.tensor([0, 3])
    assert torch.equal(categories == torch.tensor([2, 5]), mask[:, 1:])
    assert torch.equal(categories[~mask[:, 1:]], categorical[~mask[:, 1:]])
    assert torch.equal(numbers, torch.cat([numerical * ~mask[:, :1], mask[:, :1].float()], dim=1))


def test_surprise_of_a_column_is_the_cross_entropy_of_its_own_logits():
    net, batch = make_net(3, [4, 7, 2]), rows(3, [4, 7, 2], 30)
    guess = net(*batch)
    for i, logits in enumerate(guess.logits):
        theirs = F.cross_entropy(logits, batch[1][:, i], reduction="none")
        torch.testing.assert_close(guess.nll(*batch)[:, 3 + i], theirs)
    asked = torch.tensor([1, 3, 5])
    own = net.guess(net.embed(*batch), asked)
    torch.testing.assert_close(own.nll(batch[0][:, [1]], batch[1][:, [0, 2]]), guess.nll(*batch)[:, asked])


def masked_loss(net, inputs, targets, mask):
    nats = net(*inputs, mask).nll(*targets)
    return torch.where(mask, nats / net.ignorance, 0).sum()


def test_hidden_values_do_not_reach_the_net():
    net = make_net(3, [4, 7]).eval()
    numerical, categorical = rows(3, [4, 7], 50)
    mask = draw_mask(50, torch.arange(5), 0.4, torch.Generator().manual_seed(0))
    other = rows(3, [4, 7], 50, seed=1)
    changed = (
        torch.where(mask[:, :3], other[0] * 1e6, numerical).masked_fill(
            mask[:, :3] & (other[0] > 0), float("nan")
        ),
        torch.where(mask[:, 3:], other[1], categorical),
    )
    assert torch.equal(net.embed(numerical, categorical, mask), net.embed(*changed, mask))
    assert not torch.equal(net.embed(numerical, categorical), net.embed(*changed))


class Spy(SelfSupervisedResNet):
    """Keeps the mask that it is asked with, and may be told other targets afterwards."""

    def forward(self, numerical, categorical, mask=None):
        self.mask = mask
        return super().forward(numerical, categorical, mask)


def test_the_loss_is_the_mean_over_hidden_features_alone():
    seed_everything(0)
    net = Spy(3, [4, 7], d_model=16, num_blocks=1).eval()
    batch = rows(3, [4, 7], 40)
    scalars = MaskedFeatures(0.4)(net, batch, torch.Generator().manual_seed(3))
    mask = net.mask
    assert 0 < mask.float().mean() < 1
    by_hand = masked_loss(net, batch, batch, mask)
    assert scalars["loss"].item() == pytest.approx(by_hand.item() / mask.sum().item(), rel=1e-5)
    numbers, columns = mask[:, :3].sum(), mask[:, 3:].sum()
    parts = scalars["numerical"] * numbers + scalars["categorical"] * columns
    assert parts.item() == pytest.approx(by_hand.item(), rel=1e-5)

    other = rows(3, [4, 7], 40, seed=1)
    elsewhere = [torch.where(m, t, o) for m, t, o in zip(mask.split([3, 2], 1), batch, other, strict=True)]
    assert torch.equal(masked_loss(net, batch, elsewhere, mask), by_hand)  # targets that were not asked for
    there = [torch.where(m, o, t) for m, t, o in zip(mask.split([3, 2], 1), batch, other, strict=True)]
    assert not torch.allclose(masked_loss(net, batch, there, mask), by_hand)


def test_who_knows_nothing_pays_one_for_every_column():
    net = make_net(2, [3, 50])
    with torch.no_grad():
        for head in (net.numerical_head, net.categorical_head):
            head.weight.zero_()
            head.bias.zero_()
        net.numerical_head.bias[2:] = math.log(math.expm1(1 - RESOLUTION))  # standard deviation 1
    numerical, categorical = rows(2, [3, 50], 20000)
    shares = net(numerical, categorical).nll(numerical, categorical).mean(dim=0) / net.ignorance
    assert shares.tolist() == pytest.approx([1] * 4, abs=0.02)


def test_replacements_come_from_the_columns_own_training_values():
    count = 300
    numerical = 10.0 * torch.arange(2) + torch.arange(4)[:, None]  # 0 to 3, and 10 to 13
    categorical = torch.tensor([[0, 6], [1, 7], [2, 8], [0, 6]])
    batch = (torch.full((count, 2), -1.0), torch.full((count, 2), 5))
    kept = tuple(t.clone() for t in batch)
    generator = torch.Generator().manual_seed(0)
    views = corrupt(batch, (numerical, categorical), 0.5, torch.arange(4), generator)
    assert all(torch.equal(t, k) for t, k in zip(batch, kept, strict=True))
    replaced = torch.cat([view != own for view, own in zip(views, batch, strict=True)], dim=1)
    assert (replaced.sum(dim=1) == 2).all()  # half of four, in every row
    assert replaced.float().mean(dim=0).tolist() == pytest.approx([0.5] * 4, abs=0.1)
    for view, own, source in zip(views, batch, (numerical, categorical), strict=True):
        for i in range(2):
            drawn = view[:, i][view[:, i] != own[:, i]]
            values, counts = drawn.unique(return_counts=True)
            assert set(values.tolist()) == set(source[:, i].tolist())
            shares = [(source[:, i] == value).float().mean().item() for value in values]
            assert (counts / len(drawn)).tolist() == pytest.approx(shares, abs=0.12)


def test_replacements_are_drawn_apart_but_a_group_from_one_row():
    training = (torch.arange(1000.0).expand(3, -1).T, torch.empty(1000, 0, dtype=torch.long))
    batch = (torch.full((50, 3), -1.0), torch.empty(50, 0, dtype=torch.long))
    view, _ = corrupt(batch, training, 1.0, torch.tensor([0, 0, 1]), torch.Generator().manual_seed(0))
    assert torch.equal(view[:, 0], view[:, 1])
    assert (view[:, 0] != view[:, 2]).sum() > 40
    view, _ = corrupt(batch, training, 0.01, torch.arange(3), torch.Generator())
    assert ((view != batch[0]).sum(dim=1) == 1).all()  # at least one


def brute_force(a, b, temperature):
    """The definition, one pair after the other."""
    views = [*a, *b]
    total = torch.zeros((), dtype=a.dtype)
    for i, view in enumerate(views):
        partner = (i + len(a)) % len(views)
        terms = {
            k: torch.exp(torch.dot(view, other) / (view.norm() * other.norm()) / temperature)
            for k, other in enumerate(views)
            if k != i
        }
        total = total - torch.log(terms[partner] / sum(terms.values()))
    return total / len(views)


@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_nt_xent_and_its_gradient_are_those_of_the_definition(count, temperature):
    torch.manual_seed(count)
    a, b = torch.randn(2, count, 5, dtype=torch.float64)
    ours, theirs = ([t.clone().requires_grad_() for t in (a, b)] for _ in range(2))
    fast, slow = nt_xent(*ours, temperature), brute_force(*theirs, temperature)
    assert fast.item() == pytest.approx(slow.item(), abs=1e-6)
    assert nt_xent(a.float(), b.float(), temperature).item() == pytest.approx(slow.item(), abs=1e-5)
    for mine, his in zip(torch.autograd.grad(fast, ours), torch.autograd.grad(slow, theirs), strict=True):
        torch.testing.assert_close(mine, his, atol=1e-10, rtol=1e-6)


@pytest.mark.parametrize(("numbers", "cardinalities"), COLUMNS)
@pytest.mark.parametrize("count", [1, 6])
def test_any_columns_and_any_number_of_rows_train_and_evaluate(numbers, cardinalities, count):
    net = make_net(numbers, cardinalities)
    batch = (*rows(numbers, cardinalities, count), torch.zeros(count))  # a target is not looked at
    for objective in every_objective(rows(numbers, cardinalities, 20)):
        net.zero_grad()
        scalars = objective(net.train(), batch, torch.Generator().manual_seed(0))
        scalars["loss"].backward()
        gradients = [p.grad for p in net.parameters() if p.grad is not None]
        assert gradients
        assert all(torch.isfinite(g).all() for g in gradients)
        losses = [evaluate(net.eval(), batch, objective, compute)["loss"] for compute in (CPU, MIXED)]
        assert losses[0] == pytest.approx(losses[1], rel=0.05, abs=1e-3)  # mixed precision costs little
    found = nll(net, *batch[:2], compute=MIXED)
    assert (found.shape, found.dtype) == ((count, numbers + len(cardinalities)), torch.float32)


def test_the_generator_alone_decides_what_is_drawn():
    net, batch = make_net(3, [4, 7]).eval(), rows(3, [4, 7], 30)
    for objective in every_objective(rows(3, [4, 7], 20)):
        losses = []
        for seed, noise in ((0, 1), (0, 2), (1, 1)):
            torch.manual_seed(noise)
            losses.append(objective(net, batch, torch.Generator().manual_seed(seed))["loss"].item())
        assert losses[0] == losses[1] != losses[2]
        assert evaluate(net, batch, objective, CPU) == evaluate(net, batch, objective, CPU)


def dependent_rows(count, seed):
    """Columns 0 and 1 tell of each other, as do the two numbers; column 2 is uniform and alone."""
    generator = torch.Generator().manual_seed(seed)
    category = torch.randint(4, (count,), generator=generator)
    alone = torch.randint(3, (count,), generator=generator)
    number = torch.randn(count, generator=generator)
    return torch.stack([number, -number], dim=1), torch.stack([category, (category + 1) % 4, alone], dim=1)


@pytest.fixture(scope="module")
def trained():
    data = dependent_rows(2000, 0)
    net = make_net(2, [4, 4, 3], d_model=32)
    config = FitConfig(
        num_steps=350, batch_size=128, lr=5e-3, optimizer="adamw", schedule="cosine", weight_decay=0
    )
    history = fit(net, data, MaskedFeatures(0.2), config, compute=CPU)
    assert history.train["loss"][-1] < history.train["loss"][0]
    return net


def test_what_is_told_by_others_is_learned_and_what_is_not_stays_at_its_entropy(trained):
    mean = nll(trained, *dependent_rows(500, 1)).mean(dim=0)
    assert (mean[[2, 3]] < 0.05).all()
    assert mean[4].item() == pytest.approx(math.log(3), abs=0.03)
    assert (mean[:2] / trained.ignorance[:2] < 0.3).all()


def test_a_row_that_breaks_the_dependence_surprises_where_it_does(trained):
    numerical, categorical = dependent_rows(500, 1)
    usual = nll(trained, numerical, categorical)
    numerical, categorical = numerical.clone(), categorical.clone()
    categorical[0, 1] = (categorical[0, 1] + 2) % 4
    numerical[1] = torch.tensor([1.5, 1.5])
    found = nll(trained, numerical, categorical)
    assert torch.equal(found[2:], usual[2:])
    assert (found[:2].sum(dim=1) > usual.sum(dim=1).max()).all()
    assert set(found[0].topk(2).indices.tolist()) == {2, 3}
    assert set(found[1].topk(2).indices.tolist()) == {0, 1}


def test_features_hidden_together_are_judged_without_one_another(trained):
    found = nll(trained, *dependent_rows(500, 1), groups=[0, 1, 2, 2, 3])
    alone = nll(trained, *dependent_rows(500, 1))
    torch.testing.assert_close(found[:, [0, 1, 4]], alone[:, [0, 1, 4]])
    assert (found[:, [2, 3]].mean(dim=0) > 1).all()  # near log 4


RNG = np.random.default_rng(0)


def test_a_family_that_a_kind_never_has_is_not_asked_for_and_surprises_where_it_is():
    net, (numerical, categorical) = make_net(2, [4, 7]), rows(2, [4, 7], 400)
    kinds = np.array(["with", "without"] * 200, dtype=object)
    categorical = categorical.clamp(min=2)
    categorical[1::2, 1] = 0  # the second kind lacks the last field
    judge = FamilySurprise(net, [0, 0, 1, 2], CPU).fit(numerical, categorical, kinds)
    whole = judge.deviations(numerical, categorical, kinds)
    assert (whole[1::2, 2] == 0).all()
    assert (whole[:, :2] > 0).any(axis=0).all()
    categorical[1, 1] = 5
    changed = judge.deviations(numerical, categorical, kinds)
    assert changed[1, 2] > 10
    nats = nll(net, numerical, categorical, groups=[0, 0, 1, 2]).clone()
    skip = torch.zeros(400, 3, dtype=torch.bool)
    skip[::2, 1] = True
    some = nll(net, numerical, categorical, groups=[0, 0, 1, 2], skip=skip, batch_size=30)
    assert (some[::2, 2] == 0).all()
    nats[::2, 2] = 0
    torch.testing.assert_close(some, nats)


def test_rows_are_embedded_in_batches_as_at_once():
    torch.manual_seed(0)
    net = SelfSupervisedResNet(2, [3], d_model=8, num_blocks=1, dropout=0.5).train()
    numbers, categories = torch.randn(7, 2), torch.randint(0, 3, (7, 1))
    found = embed(net, numbers, categories, batch_size=3)
    assert found.shape == (7, 8)
    assert found.dtype == np.float32
    net.eval()
    np.testing.assert_allclose(found, net.embed(numbers, categories).detach().numpy(), atol=1e-6)
    assert embed(net, numbers[:0], categories[:0]).shape == (0, 8)


def test_purity_is_counted_and_near_chance_without_a_relation():
    vectors, labels = RNG.normal(size=(400, 3)), RNG.integers(0, 4, 400)
    distances = np.linalg.norm(vectors[:, None] - vectors[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    by_hand = (labels[distances.argsort(axis=1)[:, :10]] == labels[:, None]).mean()
    assert neighbor_purity(vectors, labels) == pytest.approx(by_hand)
    assert 0.2 < by_hand < 0.3
    assert neighbor_purity(np.eye(4)[labels] * 100 + vectors[:, :1], labels) == 1
