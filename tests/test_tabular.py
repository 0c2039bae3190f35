"""The nets for tables: the authors' own where they have published them, and any mix of columns."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from rtdl_revisiting_models import FTTransformer
from rtdl_revisiting_models import ResNet as PublishedResNet
from torch import nn

from companion.compute import seed_everything
from companion.models.resnet import count_parameters
from companion.models.tabular import TabularResNet
from companion.models.tabular_baselines import NETS, SoftNeighbors, make_table_net, piecewise_linear

SMALL = {
    "resnet": {"d_model": 8, "num_blocks": 1},
    "mlp": {"d_model": 8, "num_layers": 2},
    "ft_transformer": {"d_block": 8, "n_blocks": 1, "attention_n_heads": 2},
    "tab_transformer": {"d_token": 8, "num_layers": 1},
    "tabm": {"k": 3, "d_block": 8, "n_blocks": 1},
}
OURS = {  # the names of parts of the authors' ResNet
    "input_projection.": "projection.", "normalization.": "norm.", "output.norm.": "norm.",
    "output.linear.": "head.",
}  # fmt: skip


@pytest.mark.parametrize("training", [True, False])
def test_the_resnet_equals_the_authors(training):
    seed_everything(0)
    published = PublishedResNet(
        d_in=5, d_out=3, n_blocks=4, d_block=16, d_hidden_multiplier=2.0, dropout1=0.0, dropout2=0.0
    )
    net, state = TabularResNet(5, [], 16, 4, dropout=0.0, num_classes=3, norm="batch"), {}
    for name, tensor in published.state_dict().items():
        for theirs, ours in OURS.items():
            name = name.replace(theirs, ours)
        state[name] = tensor
    net.load_state_dict(state)
    assert count_parameters(net) == count_parameters(published)
    x = torch.randn(32, 5)
    for _ in range(3):  # training mode moves the running statistics, too
        ours, theirs = net.train(training)(x, None), published.train(training)(x)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    gradients = []
    for output, first in ((ours, net.projection), (theirs, published.input_projection)):
        output.square().sum().backward()
        gradients.append(first.weight.grad)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 4), st.lists(st.integers(1, 9), max_size=3), st.integers(1, 5),
    st.sampled_from(["classic", "prenorm"]), st.sampled_from(["layer", "batch"]), st.booleans(),
)  # fmt: skip
def test_a_resnet_of_any_kind_takes_any_columns(numbers, cardinalities, rows, block, norm, residual):
    assume(numbers + len(cardinalities))
    options = {"block": block, "norm": norm, "residual": residual}
    net = TabularResNet(numbers, cardinalities, 8, 2, num_classes=4, **options)
    given = torch.randn(rows, numbers), torch.zeros(rows, len(cardinalities), dtype=torch.long)
    net.train(norm == "layer" or rows > 1)  # one row has no spread to normalise by
    logits = net(*given)
    assert logits.shape == (rows, 4)
    assert torch.isfinite(logits).all()
    assert net(*given, return_embedding=True).shape == (rows, 8)
    logits.sum().backward()


def test_embeddings_start_small():
    for embedding in TabularResNet(1, [50, 4], d_model=8, num_blocks=1).input.embeddings:
        bound = embedding.embedding_dim**-0.5
        assert bound / 2 < embedding.weight.abs().max() <= bound  # PyTorch's own start has a width of 1


def small(kind, numbers, cardinalities, outputs=2):
    return make_table_net(kind, numbers, cardinalities, outputs, **SMALL[kind])


@pytest.mark.parametrize("kind", NETS)
@settings(max_examples=15, deadline=None)
@given(st.integers(0, 3), st.lists(st.integers(1, 5), max_size=3), st.integers(1, 4))
def test_every_net_takes_any_mix_of_columns(kind, numbers, cardinalities, rows):
    assume(numbers + len(cardinalities))
    net = small(kind, numbers, cardinalities).eval()
    numerical = torch.randn(rows, numbers)
    categorical = torch.zeros(rows, len(cardinalities), dtype=torch.long)
    output = net(numerical, categorical)
    assert output.shape == ((rows, 3, 2) if kind == "tabm" else (rows, 2))
    torch.testing.assert_close(output[:1], net(numerical[:1], categorical[:1]), rtol=1e-4, atol=1e-5)
    net.train()(numerical, categorical).sum().backward()


@pytest.mark.parametrize("kind", NETS)
def test_every_feature_reaches_the_output(kind):
    seed_everything(0)
    net = small(kind, 2, [3, 4]).eval()
    numerical, categorical = torch.randn(1, 2), torch.tensor([[1, 2]])
    before = net(numerical, categorical)
    for column in range(2):
        moved, other = numerical.clone(), categorical.clone()
        moved[0, column] += 1
        other[0, column] = 0
        assert not torch.allclose(before, net(moved, categorical))
        assert not torch.allclose(before, net(numerical, other))


def test_the_ft_transformer_is_the_authors():
    seed_everything(0)
    ours = make_table_net("ft_transformer", 3, [4], 2)
    seed_everything(0)
    theirs = FTTransformer(
        n_cont_features=3, cat_cardinalities=[4], d_out=2, **FTTransformer.get_default_kwargs()
    )
    x, c = torch.randn(5, 3), torch.tensor([[0], [1], [2], [3], [3]])
    assert torch.equal(ours.eval()(x, c), theirs.eval()(x, c))
    assert count_parameters(ours) == count_parameters(theirs)


@pytest.mark.parametrize("kind", ["mlp", "resnet", "tabm"])
def test_embedded_numbers_are_linear_at_first_and_bend_at_quantiles_later(kind):
    seed_everything(0)
    rows = torch.randn(200, 2)
    embeddings = piecewise_linear(rows, d_embedding=3, n_bins=4)
    net = make_table_net(kind, 2, [3], 1, num_embeddings=embeddings, **SMALL[kind]).eval()
    line = torch.linspace(-1, 1, 5)[:, None].expand(5, 2)
    bends = embeddings(line).diff(dim=0).diff(dim=0)
    torch.testing.assert_close(bends, torch.zeros_like(bends), atol=1e-5, rtol=0)
    torch.nn.init.normal_(embeddings.linear.weight)
    assert embeddings(line).diff(dim=0).diff(dim=0).abs().max() > 0.1
    net(rows, torch.zeros(200, 1, dtype=torch.long)).sum().backward()
    assert embeddings.linear.weight.grad.abs().sum() > 0


class Numbers(nn.Module):
    """The space is that of the numbers."""

    def forward(self, numerical, categorical):
        return numerical


@pytest.mark.parametrize("classes", [None, 2])
def test_the_nearest_training_rows_answer_but_none_for_itself(classes):
    numbers = torch.tensor([[0.0], [1.0], [50.0]])
    categories, target = torch.zeros(3, 0, dtype=torch.long), torch.tensor([1, 0, 1])
    rows = (numbers, categories, target.float() if classes is None else target)
    net = SoftNeighbors(Numbers(), rows, classes, share=1.0)
    told = net.eval()(torch.tensor([[0.25]]), categories[:1])
    near, far = np.exp(-0.25), np.exp(-0.75)
    positive = told if classes is None else told.exp()[:, 1:]
    assert positive.item() == pytest.approx(near / (near + far), abs=1e-5)
    alone = net.train()(numbers[:1], categories[:1])  # its own answer is 1, its neighbour's 0
    assert (alone if classes is None else alone.exp()[:, 1:]).item() == pytest.approx(0, abs=1e-5)
