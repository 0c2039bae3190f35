import pytest
import torch
import torchvision
from torch import nn

from companion.compute import seed_everything
from companion.models.blocks import BasicResidualBlock, BottleneckBlock, PreActResidualBlock
from companion.models.resnet import FAMILY, ResNet, count_parameters
from companion.models.resnet9 import ResNet9

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


@pytest.mark.parametrize("block", [BasicResidualBlock, BottleneckBlock, PreActResidualBlock])
@pytest.mark.parametrize(("stem", "size"), [("imagenet", 4), ("cifar", 16)])
def test_stems_and_stages_divide_the_size(block, stem, size):
    net = ResNet(block, (1, 2), 5, stem=stem, width=8)
    assert net.features(torch.zeros(1, 3, 32, 32)).shape == (1, 16 * block.expansion, size, size)
    assert net(torch.zeros(2, 3, 32, 40)).shape == (2, 5)


def test_a_pre_activated_net_ends_in_a_norm():
    net = ResNet(PreActResidualBlock, (1, 1), 5, stem="cifar", width=8)
    assert net.bn1.num_features == 16
    assert (net.features(torch.randn(2, 3, 8, 8)) >= 0).all()


def test_the_plain_twin_has_no_shortcut_and_no_projection():
    net = ResNet(BasicResidualBlock, (1, 1), 5, width=8, shortcut=None)
    assert all(block.shortcut is None for stage in net.blocks() for block in stage)


def test_resnet9_takes_a_width_and_learns_from_the_first_step():
    net = ResNet9(width=8, num_classes=3)
    convolutions = [m.out_channels for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert convolutions == [8, 16, 16, 16, 32, 64, 64, 64]
    net(torch.randn(4, 3, 16, 24)).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
