import subprocess
import sys

import pytest
import torch
from torch import nn

from companion.models.blocks import (
    BasicResidualBlock,
    BottleneckBlock,
    PreActResidualBlock,
    ZeroPadShortcut,
    conv1x1,
    make_shortcut,
    zero_residual,
)

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
