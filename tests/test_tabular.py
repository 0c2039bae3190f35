import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from rtdl_revisiting_models import ResNet as PublishedResNet

from companion.compute import seed_everything
from companion.models.resnet import count_parameters
from companion.models.tabular import TabularResNet


def copied(published: PublishedResNet, net: TabularResNet) -> TabularResNet:
    """``net`` with the weights of the authors' net."""
    rules = {
        "input_projection": "projection", "normalization": "norm",
        "output.norm": "norm", "output.linear": "head",
    }  # fmt: skip
    state = {}
    for name, tensor in published.state_dict().items():
        for old, new in rules.items():
            name = name.replace(f"{old}.", f"{new}.")
        state[name] = tensor
    net.load_state_dict(state)
    return net


@pytest.mark.parametrize("training", [True, False])
def test_it_equals_the_authors_net(training):
    seed_everything(0)
    published = PublishedResNet(
        d_in=5, d_out=3, n_blocks=4, d_block=16, d_hidden_multiplier=2.0, dropout1=0.0, dropout2=0.0
    )
    net = TabularResNet(5, [], 16, 4, dropout=0.0, num_classes=3, norm="batch")
    copied(published, net)
    assert count_parameters(net) == count_parameters(published)
    x = torch.randn(32, 5)
    for _ in range(3):  # training mode moves the running statistics, too
        ours, theirs = net.train(training)(x, None), published.train(training)(x)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    ours.square().sum().backward()
    theirs.square().sum().backward()
    torch.testing.assert_close(
        net.projection.weight.grad, published.input_projection.weight.grad, rtol=1e-4, atol=1e-5
    )


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 4), st.lists(st.integers(1, 9), max_size=3), st.integers(1, 5),
    st.sampled_from(["classic", "prenorm"]), st.sampled_from(["layer", "batch"]), st.booleans(),
)  # fmt: skip
def test_any_mix_of_columns_and_any_number_of_rows_goes_through(
    numbers, cardinalities, rows, block, norm, residual
):
    assume(numbers + len(cardinalities))
    net = TabularResNet(
        numbers, cardinalities, 8, 2, num_classes=4, block=block, norm=norm, residual=residual
    )
    numerical = torch.randn(rows, numbers)
    categorical = (
        torch.stack([torch.randint(c, (rows,)) for c in cardinalities], dim=1) if cardinalities else None
    )
    for training in (True, False):
        net.train(training)
        if training and norm == "batch" and rows == 1:
            continue  # one row has no spread to normalise by, as PyTorch says
        logits = net(numerical if numbers else None, categorical)
        assert logits.shape == (rows, 4)
        assert torch.isfinite(logits).all()
        assert net(numerical, categorical, return_embedding=True).shape == (rows, 8)
    logits.sum().backward()


def test_embeddings_start_small():
    net = TabularResNet(1, [50, 4], d_model=8, num_blocks=1)
    for embedding in net.input.embeddings:
        bound = embedding.embedding_dim**-0.5
        assert bound / 2 < embedding.weight.abs().max() <= bound  # PyTorch's own start has a width of 1
