"""What ``companion.models`` exports, and that every net of it can be exported as a graph."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from companion import models
from companion.compute import seed_everything

IMAGES = torch.randn(2, 3, 32, 32)
NUMBERS, CATEGORIES = torch.randn(4, 3), torch.tensor([[0, 1], [3, 0], [1, 1], [2, 0]])
TABLE = (NUMBERS, CATEGORIES)
TOKENS = torch.tensor([[1, 2, 3, 0, -1], [0, 1, 1, 3, 2]])
NETS = {
    "BasicResidualBlock": (lambda: models.BasicResidualBlock(3, 8, 2), (IMAGES,)),
    "BottleneckBlock": (lambda: models.BottleneckBlock(3, 8, 2), (IMAGES,)),
    "PreActResidualBlock": (lambda: models.PreActResidualBlock(3, 8, 2), (IMAGES,)),
    "CifarResNet": (lambda: models.CifarResNet(8), (IMAGES,)),
    "ResNet": (lambda: models.ResNet(models.BottleneckBlock, (1, 1), 5, width=8), (IMAGES,)),
    "ResNet9": (lambda: models.ResNet9(8), (IMAGES,)),
    "ClassicTabularBlock": (lambda: models.ClassicTabularBlock(3, 5), (NUMBERS,)),
    "PreNormTabularBlock": (lambda: models.PreNormTabularBlock(3, 5), (NUMBERS,)),
    "TabularResNet": (lambda: models.TabularResNet(3, [4, 2], 8, 2, num_classes=2), TABLE),
    "TabTransformer": (lambda: models.TabTransformer(3, [4, 2], 2, d_token=8, num_layers=1), TABLE),
    "TableMLP": (lambda: models.TableMLP(3, [4, 2], 2, d_model=8), TABLE),
    "make_table_net": (lambda: models.make_table_net("resnet", 3, [4, 2], 2, d_model=8), TABLE),
    "SelfSupervisedResNet": (lambda: Embedding(models.SelfSupervisedResNet(3, [4, 2], 8, 2)), TABLE),
    "NextEventLSTM": (lambda: models.NextEventLSTM(4, 8), (TOKENS,)),
    "NextEventTransformer": (lambda: models.NextEventTransformer(4, 8, 2), (TOKENS,)),
    "ConvAutoencoder": (lambda: models.ConvAutoencoder(3, (32, 32), 8, (4, 8)), (IMAGES,)),
    "ResidualAutoencoder": (lambda: models.ResidualAutoencoder(3, (32, 32), (4, 8), 2), (IMAGES,)),
    "WaveAutoencoder": (lambda: models.WaveAutoencoder(2, 37, 3, 6, 4), (torch.randn(3, 2, 37),)),
}
SAME = {"ResNetAE": "WaveAutoencoder"} | {f"resnet{depth}": "ResNet" for depth in (18, 34, 50, 101, 152)}


class Embedding(nn.Module):
    """A graph returns tensors; a reconstruction is an object of our own."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, numerical, categorical):
        return self.net.embed(numerical, categorical, numerical.new_zeros(len(numerical), 5).bool())


def test_every_exported_name_is_there_and_its_net_is_tried():
    assert set(models.__all__) == NETS.keys() | SAME.keys() | {"count_parameters"}
    assert all(callable(getattr(models, name)) for name in models.__all__)
    with pytest.raises(AttributeError, match="ResNet20"):
        models.ResNet20  # noqa: B018


def test_importing_the_names_loads_nothing_before_one_is_asked_for():
    code = "import sys, companion.models; assert not {'torch', 'tabm'} & sys.modules.keys()"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.filterwarnings("ignore:The tensor attributes self.lstm")
@pytest.mark.parametrize("name", NETS)
def test_a_net_exports_and_compiles_without_a_break_and_computes_the_same(name):
    make, inputs = NETS[name]
    seed_everything(0)
    net = make().eval()
    expected = net(*inputs)
    exported = torch.export.export(net, inputs).module()(*inputs)
    with torch._dynamo.config.patch(allow_rnn=True):  # PyTorch does not trace its own LSTM otherwise
        compiled = torch.compile(net, fullgraph=True, backend="eager")(*inputs)
    for found in (exported, compiled):
        torch.testing.assert_close(found, expected)
