import ast
import re
import time
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from companion.compute import Compute
from companion.models import cost
from companion.models.blocks import BasicResidualBlock, BottleneckBlock, PreActResidualBlock
from companion.models.cost import activation_bytes, multiply_adds, numbers_moved, stage_costs, time_models
from companion.models.resnet import FAMILY, ResNet, count_parameters

BLOCKS = (BasicResidualBlock, BottleneckBlock, PreActResidualBlock)
IMAGE = (1, 3, 224, 224)


@pytest.fixture(scope="module")
def family():
    with torch.device("meta"):
        return {depth: make() for depth, make in FAMILY.items()}


@pytest.mark.parametrize("depth", FAMILY)
def test_the_family_has_torchvisions_multiply_adds(family, depth):
    weights = torchvision.models.get_model_weights(f"resnet{depth}").IMAGENET1K_V1
    assert multiply_adds(family[depth], IMAGE) / 1e9 == pytest.approx(weights.meta["_ops"], abs=5.1e-4)


@pytest.mark.parametrize(("name", "weights"), [("published", "IMAGENET1K_V1"), ("again", "IMAGENET1K_V2")])
def test_the_chapters_published_errors_are_torchvisions(name, weights):
    chapter = Path(__file__).parents[1] / "book" / "bottleneck.md"
    published = ast.literal_eval(re.search(rf"{name} = (\{{.+?\}})", chapter.read_text("utf8"))[1])
    assert published.keys() <= FAMILY.keys()
    for depth, error in published.items():
        meta = torchvision.models.get_model_weights(f"resnet{depth}")[weights].meta
        assert error == pytest.approx(100 - meta["_metrics"]["ImageNet-1K"]["acc@1"])


@pytest.mark.parametrize("block", BLOCKS)
def test_the_counted_bytes_are_those_of_a_real_forward_pass(block):
    net = ResNet(block, (1, 2), 5, width=8)
    expected = activation_bytes(net, (2, 3, 32, 32))
    kept = []

    def keep(tensor):
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        net(torch.randn(2, 3, 32, 32))
    own = {t.untyped_storage().data_ptr() for t in [*net.parameters(), *net.buffers()]}
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in kept}
    assert sum(size for address, size in storages.items() if address not in own) == expected


def test_every_operation_reads_and_writes_its_tensors_once_and_views_move_nothing():
    conv, maps = nn.Conv2d(4, 8, 1, bias=False), (2, 4, 5, 5)
    once = 2 * 4 * 25 + 4 * 8 + 2 * 8 * 25
    assert numbers_moved(conv, maps) == once
    assert numbers_moved(nn.Sequential(conv, nn.ReLU(), nn.Flatten()), maps) == once + 2 * (2 * 8 * 25)


def test_the_stride_in_the_first_convolution_gives_the_papers_bottleneck(family):
    with torch.device("meta"):
        net = FAMILY[50]()
    for stage in net.blocks()[1:]:
        stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
    assert stage_costs(net, IMAGE)[-2].receptive_field == 483  # Araujo et al. 2019
    assert multiply_adds(net, IMAGE) / 1e9 == pytest.approx(3.8, abs=0.1)  # He et al. 2016, table 1


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("stem", ["imagenet", "cifar"])
def test_the_receptive_field_is_where_the_gradient_is_not_zero(block, stem):
    net = ResNet(block, (1, 2), 5, stem=stem, width=4, norm=lambda channels: nn.Identity()).double().eval()
    if stem == "imagenet":
        net.maxpool = nn.AvgPool2d(3, stride=2, padding=1)  # a max passes the gradient to one pixel only
    for parameter in net.parameters():
        nn.init.constant_(parameter, 1 / parameter[0].numel())
    images = torch.ones(1, 3, 128, 128, dtype=torch.float64, requires_grad=True)
    maps = net.features(images)
    middle = maps.shape[-1] // 2
    (grad,) = torch.autograd.grad(maps[0, :, middle, middle].sum(), images)
    sides = [(grad.sum(dim=(0, 1)).sum(dim=axis) > 0).sum().item() for axis in (0, 1)]
    assert sides == [stage_costs(net, (1, 3, 128, 128))[-2].receptive_field] * 2


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("stem", ["imagenet", "cifar"])
def test_the_parts_of_a_net_add_up_to_the_net(block, stem):
    net = ResNet(block, (1, 2), 5, stem=stem, width=8)
    parts = stage_costs(net, (2, 3, 32, 32))
    assert [part.name for part in parts] == ["stem", "stage 1", "stage 2", "head"]
    assert sum(part.parameters for part in parts) == count_parameters(net)
    assert sum(part.multiply_adds for part in parts) == multiply_adds(net, (2, 3, 32, 32))
    shapes = (tuple(net.features(torch.zeros(2, 3, 32, 32)).shape), (2, 5))
    assert tuple(part.output_shape for part in parts[-2:]) == shapes
    assert parts[-1].receptive_field is None


def test_the_time_is_per_image_and_models_take_turns(monkeypatch):
    log, seconds = [], {"a": 0.005, "b": 0.01}  # of an image

    class Sleeper(nn.Identity):
        def forward(self, images):
            log.append((self.name, images.dtype, self.training, torch.is_inference_mode_enabled()))
            time.sleep(4 * seconds[self.name])
            return images

    jobs = {name: (Sleeper(), (4, 3, 2, 2)) for name in seconds}
    for name, (model, _) in jobs.items():
        model.name = name
    monkeypatch.setattr(cost, "TIMING_SECONDS", 0.001)
    times = time_models(jobs, Compute(torch.device("cpu"), torch.bfloat16), rounds=3)
    assert [name for name, *_ in log] == list("aabb" + "ababab")
    assert {call[1:] for call in log} == {(torch.bfloat16, False, True)}
    for name, least in seconds.items():
        assert least <= times[name].fastest <= times[name].median <= times[name].slowest
        assert times[name].fastest < 3 * least
