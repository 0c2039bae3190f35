"""Residual blocks and nets of them: torchvision's and the papers' numbers, shapes, and identities."""

import subprocess
import sys

import pytest
import torch
import torchvision
from torch import nn

from companion.compute import seed_everything
from companion.models.blocks import (
    BasicResidualBlock,
    BottleneckBlock,
    PreActResidualBlock,
    ZeroPadShortcut,
    conv1x1,
    make_shortcut,
    zero_residual,
)
from companion.models.resnet import FAMILY, CifarResNet, ResNet, count_parameters, deepen

BLOCKS = (BasicResidualBlock, BottleneckBlock, PreActResidualBlock)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("option", ["A", "B", "C"])
@pytest.mark.parametrize(("in_channels", "stride"), [(8, 1), (8, 2), (32, 1), (32, 2)])
def test_every_block_gives_its_width_times_its_expansion(block, option, in_channels, stride):
    width = 32 // block.expansion
    made = block(in_channels, width, stride, option)
    assert made(torch.randn(2, in_channels, 9, 9)).shape == (2, 32, -(-9 // stride), -(-9 // stride))
    inner = (m for m in made.modules() if m is not made.shortcut)
    assert sum(isinstance(m, nn.Conv2d) for m in inner) >= made.num_convolutions


def test_the_shortcut_options_are_the_papers():
    same = [type(make_shortcut(option, 8, 8, 1, nn.BatchNorm2d)) for option in "ABC"]
    changing = [type(make_shortcut(option, 8, 16, 2, nn.BatchNorm2d)) for option in "ABC"]
    assert same == [nn.Identity, nn.Identity, nn.Sequential]
    assert changing == [ZeroPadShortcut, nn.Sequential, nn.Sequential]


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("training", [True, False])
def test_zeroed_blocks_start_as_the_identity(block, training):
    made = block(32, 32 // block.expansion).train(training)
    x = torch.randn(4, 32, 8, 8)
    x = x if made.preactivated else x.relu()  # no ReLU follows the addition of the former
    assert not torch.allclose(made(x), x)
    zero_residual(made)
    assert torch.equal(made(x), x)


def test_pre_activation_is_the_formula():
    block = PreActResidualBlock(8, 16, 2)
    x = torch.randn(4, 8, 8, 8)
    active = torch.relu(block.bn1(x))
    expected = block.shortcut(active) + block.conv2(torch.relu(block.bn2(block.conv1(active))))
    torch.testing.assert_close(block(x), expected)


def test_shortcut_a_of_a_pre_activated_block_takes_the_raw_input():
    block = PreActResidualBlock(8, 16, 2, "A")
    zero_residual(block)
    x = torch.randn(2, 8, 5, 5)
    assert torch.equal(block(x)[:, :8], x[:, :, ::2, ::2])
    assert block(x).shape == (2, 16, 3, 3)
    assert not block(x)[:, 8:].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_narrow_strided_1x1_convolution_gives_what_pytorchs_gives(dtype):
    ours = conv1x1(8, 16, 2).to(dtype)
    theirs = nn.Conv2d(8, 16, 1, stride=2, bias=False).to(dtype)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(4, 8, 9, 32, dtype=dtype)
    outputs = [net(x) for net in (ours, theirs)]
    torch.testing.assert_close(*outputs)
    for y in outputs:
        y.float().square().sum().backward()
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)


def test_narrow_nets_on_large_maps_do_not_break_the_process():
    code = """
import torch
from companion.models.blocks import conv1x1
layer = conv1x1(8, 8, 2).to(memory_format=torch.channels_last)
for size in (64, 128):
    for _ in range(10):
        x = torch.randn(4, 8, size, size).to(memory_format=torch.channels_last).requires_grad_()
        layer(x).sum().backward()
"""
    # PyTorch's own layer ends it with SIGSEGV
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# torchvision's documentation
PUBLISHED = {18: 11_689_512, 34: 21_797_672, 50: 25_557_032, 101: 44_549_160, 152: 60_192_808}


@pytest.mark.parametrize(("depth", "count"), PUBLISHED.items())
def test_parameter_counts_are_torchvisions(depth, count):
    with torch.device("meta"):
        net = FAMILY[depth]()
    assert count_parameters(net) == count
    assert net.depth == depth


def named(theirs):
    """Torchvision's state, or gradients, with the one name that differs."""
    return {name.replace("downsample", "shortcut"): tensor for name, tensor in theirs}


@pytest.mark.parametrize("depth", [18, 50])
def test_outputs_and_gradients_equal_torchvisions(depth):
    seed_everything(0)
    oracle = getattr(torchvision.models, f"resnet{depth}")(num_classes=10)
    net = FAMILY[depth](num_classes=10)
    net.load_state_dict(named(oracle.state_dict().items()))
    images = torch.randn(4, 3, 64, 64)
    for training in (True, False):  # in training mode first, which also moves the running statistics
        ours, theirs = (each.train(training)(images) for each in (net, oracle))
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
        net.zero_grad()
        oracle.zero_grad()
        ours.square().sum().backward()
        theirs.square().sum().backward()
        grads = named((name, p.grad) for name, p in oracle.named_parameters())
        for name, parameter in net.named_parameters():
            scale = float(grads[name].abs().max())
            torch.testing.assert_close(parameter.grad, grads[name], rtol=1e-3, atol=1e-4 * scale)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize(("stem", "size"), [("imagenet", 4), ("cifar", 16)])
def test_stems_and_stages_divide_the_size(block, stem, size):
    net = ResNet(block, (1, 2), 5, stem=stem, width=8)
    assert net.features(torch.zeros(1, 3, 32, 32)).shape == (1, 16 * block.expansion, size, size)
    assert net(torch.zeros(2, 3, 32, 40)).shape == (2, 5)


# He et al. 2016, table 6, in millions
PAPERS = {20: 0.27, 32: 0.46, 44: 0.66, 56: 0.85, 110: 1.7}


@pytest.mark.parametrize(("depth", "millions"), PAPERS.items())
def test_parameter_counts_are_the_papers(depth, millions):
    digits = 1 if depth == 110 else 2
    for residual in (True, False):
        net = CifarResNet(depth, residual=residual)
        assert round(count_parameters(net) / 1e6, digits) == millions
        assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in net.modules()) == depth


@pytest.mark.parametrize("depth", [2, 21, 0, -4])
def test_a_depth_that_is_not_6n_plus_2_is_refused(depth):
    with pytest.raises(ValueError, match="6n"):
        CifarResNet(depth)


def test_the_plain_twin_starts_from_the_same_weights():
    nets = []
    for residual in (True, False):
        seed_everything(3)
        nets.append(CifarResNet(14, residual=residual).state_dict())
    assert nets[0].keys() == nets[1].keys()
    assert all(torch.equal(nets[0][name], nets[1][name]) for name in nets[0])


def test_the_addition_is_all_that_the_plain_twin_lacks():
    x = torch.randn(2, 16, 8, 8)
    residual, plain = BasicResidualBlock(16, 16), BasicResidualBlock(16, 16, shortcut=None)
    plain.load_state_dict(residual.state_dict())
    hidden = residual.bn2(residual.conv2(torch.relu(residual.bn1(residual.conv1(x)))))
    torch.testing.assert_close(plain(x), torch.relu(hidden))
    torch.testing.assert_close(residual(x), torch.relu(hidden + x))


def test_the_solution_by_construction_computes_the_same_also_in_training_mode():
    seed_everything(0)
    shallow, images = CifarResNet(8, residual=False), torch.randn(64, 3, 16, 16)
    shallow(images)  # gives the running statistics values of their own
    deeper = deepen(shallow.eval(), 26, images)
    assert deeper.depth == 26
    assert count_parameters(deeper) > 3 * count_parameters(shallow)
    with torch.no_grad():
        torch.testing.assert_close(deeper(images), shallow(images), rtol=0, atol=1e-4)
        torch.testing.assert_close(deeper.train()(images), shallow.train()(images), rtol=0, atol=1e-3)
