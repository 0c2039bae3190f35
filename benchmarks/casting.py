"""`python -m benchmarks.casting`: the nets of the chapter on casting faults, in images a second.

Each is measured in turns with a matrix product in the same precision, which bounds what the machine can give.
"""

from __future__ import annotations

import copy

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarks.turns import medians
from companion.compute import describe_hardware, pick_compute
from companion.models.autoencoders import ConvAutoencoder
from companion.models.blocks import BasicResidualBlock
from companion.models.cost import PRODUCT, throughput
from companion.models.resnet import ResNet

IMAGES = 500
"""Images in a forward pass."""
NETS = ("autoencoder, 64x64 grey", "classifier, 32x48 colour")


def job(name: str) -> tuple[nn.Module, tuple[int, int, int, int]]:
    """One of :data:`NETS`, and the shape of its batch."""
    if name == NETS[0]:
        return ConvAutoencoder(), (IMAGES, 1, 64, 64)
    return ResNet(BasicResidualBlock, (1, 1, 1), 1, stem="cifar", width=8), (IMAGES, 3, 32, 48)


@torch.inference_mode()
def inference(name: str) -> tuple[float, float]:
    """Seconds to score images in the policy's precision and memory format, and in float32 and NCHW."""
    net, shape = job(name)
    compute, images = pick_compute(), torch.rand(*shape)
    theirs = copy.deepcopy(net).to(compute.device).eval()
    ours = compute.model(net).eval()
    quick, plain = compute.images(images), images.to(compute.device)

    def finish() -> None:
        if compute.device.type == "cuda":
            torch.cuda.synchronize()

    def with_policy() -> None:
        with compute.autocast():
            ours(quick)
        finish()

    def without() -> None:
        theirs(plain)
        finish()

    return medians(with_policy, without, rounds=7)


def main() -> None:
    """Measure both nets and print a table."""
    compute = pick_compute()
    table = Table(
        "net", "images/s", "multiply-adds an image", "of the matrix product's rate", "float32 and NCHW take"
    )
    found = throughput({name: job(name) for name in NETS}, compute)
    for name in NETS:
        ours, theirs = inference(name)
        each = found[name]
        table.add_row(
            name,
            f"{each.per_second:,.0f}",
            f"{each.multiply_adds:,}",
            f"{each.share:.1%}",
            f"{theirs / ours:.1f} times as long",
        )
    console = Console()
    console.print(
        f"{describe_hardware(compute.device)}; matrix product {found[PRODUCT].rate:.3g} multiply-adds/s"
    )
    console.print(table)


if __name__ == "__main__":
    main()
