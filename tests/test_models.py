"""Every net can be exported as a graph and compiled."""

import pytest
import torch
from torch import nn

from companion.compute import seed_everything
from companion.models import autoencoders, blocks, lstm, masked_resnet, resnet, resnet9, tabular
from companion.models.tabular_baselines import TableMLP, TabTransformer

IMAGES = torch.randn(2, 3, 32, 32)
NUMBERS, CATEGORIES = torch.randn(4, 3), torch.tensor([[0, 1], [3, 0], [1, 1], [2, 0]])
TABLE = (NUMBERS, CATEGORIES)
TOKENS = torch.tensor([[1, 2, 3, 0, -1], [0, 1, 1, 3, 2]])


class Embedding(nn.Module):
    """A graph returns tensors; a reconstruction is an object of our own."""

    def __init__(self):
        super().__init__()
        self.net = masked_resnet.SelfSupervisedResNet(3, [4, 2], 8, 2)

    def forward(self, numerical, categorical):
        return self.net.embed(numerical, categorical, numerical.new_zeros(len(numerical), 5).bool())


@pytest.mark.filterwarnings("ignore:The tensor attributes self.lstm")
@pytest.mark.parametrize(
    ("make", "inputs"),
    [
        (lambda: resnet.ResNet(blocks.BasicResidualBlock, (1, 1), 5, width=8), (IMAGES,)),
        (lambda: resnet.ResNet(blocks.BottleneckBlock, (1, 1), 5, width=8), (IMAGES,)),
        (lambda: resnet.ResNet(blocks.PreActResidualBlock, (1, 1), 5, width=8), (IMAGES,)),
        (lambda: resnet.CifarResNet(8), (IMAGES,)),
        (lambda: resnet9.ResNet9(8), (IMAGES,)),
        (lambda: tabular.TabularResNet(3, [4, 2], 8, 2, num_classes=2), TABLE),
        (lambda: tabular.TabularResNet(3, [4, 2], 8, 2, num_classes=2, block="classic"), TABLE),
        (lambda: TabTransformer(3, [4, 2], 2, d_token=8, num_layers=1), TABLE),
        (lambda: TableMLP(3, [4, 2], 2, d_model=8), TABLE),
        (Embedding, TABLE),
        (lambda: lstm.NextEventLSTM(4, 8), (TOKENS,)),
        (lambda: lstm.NextEventTransformer(4, 8, 2), (TOKENS,)),
        (lambda: autoencoders.ConvAutoencoder(3, (32, 32), 8, (4, 8)), (IMAGES,)),
        (lambda: autoencoders.ResidualAutoencoder(3, (32, 32), (4, 8), 2), (IMAGES,)),
        (lambda: autoencoders.WaveAutoencoder(2, 37, 3, 6, 4), (torch.randn(3, 2, 37),)),
    ],
)
def test_a_net_exports_and_compiles_without_a_break_and_computes_the_same(make, inputs):
    seed_everything(0)
    net = make().eval()
    expected = net(*inputs)
    exported = torch.export.export(net, inputs).module()(*inputs)
    with torch._dynamo.config.patch(allow_rnn=True):  # PyTorch does not trace its own LSTM otherwise
        compiled = torch.compile(net, fullgraph=True, backend="eager")(*inputs)
    for found in (exported, compiled):
        torch.testing.assert_close(found, expected)
