"""`python -m benchmarks`: training steps, the input pipeline, embeddings, each beside the ordinary way.

Each pair is measured in turns in one run, so that a change in the machine's speed meets both.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from rich.console import Console
from rich.table import Table
from rtdl_revisiting_models import ResNet
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks import casting
from benchmarks.turns import medians
from companion.compute import describe_hardware, pick_compute
from companion.models.resnet import CifarResNet
from companion.models.tabular import TabularResNet
from companion.objectives.classification import ImageClassification, normalize, random_shift_flip
from companion.objectives.tables import TableObjective
from companion.training import FitConfig, fit

BATCH = 128
ROWS = ("training step, net for tables", "embedding")
MEAN, STD = torch.tensor([0.49, 0.48, 0.45]), torch.tensor([0.25, 0.24, 0.26])


def matrix_product(size: int = 2048) -> tuple[float, float]:
    """Seconds for a matrix product in the policy's precision and in float32, a bound for what it can give."""
    compute = pick_compute()
    a, b = (torch.randn(size, size, device=compute.device) for _ in range(2))
    low = [t.to(compute.autocast_dtype or torch.float32) for t in (a, b)]

    def product(x: torch.Tensor, y: torch.Tensor) -> None:
        x @ y
        if compute.device.type == "cuda":
            torch.cuda.synchronize()

    return medians(lambda: product(*low), lambda: product(a, b), rounds=9)


def training_step(steps: int = 5) -> tuple[float, float]:
    """Seconds for a step of ResNet-20 through ``companion``, and the ordinary way: float32 and NCHW."""
    images = torch.randint(0, 256, (1024, 3, 32, 32), dtype=torch.uint8)
    labels = torch.randint(0, 10, (1024,))
    compute, objective = pick_compute(), ImageClassification(MEAN, STD, max_shift=4, flip=True)
    ours = CifarResNet(20)
    config = FitConfig(num_steps=steps, batch_size=BATCH)

    theirs = CifarResNet(20).to(compute.device)
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    batch = ((images[:BATCH].float() / 255 - MEAN[:, None, None]) / STD[:, None, None]).contiguous()
    batch, target = batch.to(compute.device), labels[:BATCH].to(compute.device)

    def ordinary() -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            F.cross_entropy(theirs(batch), target).backward()
            optimizer.step()
        if compute.device.type == "cuda":
            torch.cuda.synchronize()

    first, second = medians(
        lambda: fit(ours, (images, labels), objective, config, compute=compute), ordinary, rounds=3
    )
    return first / steps, second / steps


class PictureData(Dataset[torch.Tensor]):
    """CIFAR-like images as torchvision's data sets give them: one by one, through PIL."""

    def __init__(self, images: np.ndarray) -> None:
        self.images = images
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(MEAN.tolist(), STD.tolist()),
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        image: torch.Tensor = self.transform(Image.fromarray(self.images[index]))
        return image


def input_pipeline(num_workers: int, num_images: int = 5000) -> tuple[float, float]:
    """Seconds to augment and normalise images in batches, and in a DataLoader."""
    images = torch.randint(0, 256, (num_images, 3, 32, 32), dtype=torch.uint8)
    loader = DataLoader(
        PictureData(images.permute(0, 2, 3, 1).contiguous().numpy()),
        batch_size=BATCH,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
    )

    def ours() -> None:
        for chosen in torch.randperm(num_images).split(BATCH):
            normalize(random_shift_flip(images.index_select(0, chosen)), MEAN, STD)

    def theirs() -> None:
        for _ in loader:
            pass

    return medians(ours, theirs, rounds=5)


def table_nets(rows: int, features: int = 50) -> tuple[TabularResNet, ResNet, torch.Tensor]:
    """The residual net for tables, the authors' with the same sizes, and random rows."""
    net = TabularResNet(features, [], 256, 6, num_classes=2, norm="batch")
    authors = ResNet(
        d_in=features, d_out=2, n_blocks=6, d_block=256, d_hidden_multiplier=2.0, dropout1=0.1, dropout2=0.0
    )
    return net, authors, torch.randn(rows, features)


def table_training(steps: int = 20, batch_size: int = 512) -> tuple[float, float]:
    """Seconds for a training step of the residual net for tables, and of the authors' in an ordinary loop."""
    net, authors, x = table_nets(steps * batch_size)
    compute, labels = pick_compute(), torch.randint(0, 2, (len(x),))
    data = (x, torch.zeros(len(x), 0, dtype=torch.long), labels)
    config = FitConfig(num_steps=steps, batch_size=batch_size, lr=1e-3, optimizer="adamw")
    authors.to(compute.device)
    optimizer = torch.optim.AdamW(authors.parameters(), lr=1e-3)

    def ordinary() -> None:
        for chosen in torch.randperm(len(x)).split(batch_size):
            optimizer.zero_grad()
            logits = authors(x[chosen].to(compute.device))
            F.cross_entropy(logits, labels[chosen].to(compute.device)).backward()
            optimizer.step()
        if compute.device.type == "cuda":
            torch.cuda.synchronize()

    first, second = medians(
        lambda: fit(net, data, TableObjective(2), config, compute=compute), ordinary, rounds=5
    )
    return first / steps, second / steps


@torch.inference_mode()
def table_embedding(num_rows: int = 10_000, batch_size: int = 2000) -> tuple[float, float]:
    """Seconds to embed rows, and to do so with the authors' net."""
    net, authors, x = table_nets(num_rows)
    compute = pick_compute()
    net.to(compute.device).eval()
    authors.to(compute.device).eval()
    authors.output = authors.output[:-1]  # without its head

    def ours() -> None:
        with compute.autocast():
            for batch in x.split(batch_size):
                net(batch.to(compute.device), None, return_embedding=True).cpu()

    def theirs() -> None:
        for batch in x.split(batch_size):
            authors(batch.to(compute.device)).cpu()

    return medians(ours, theirs, rounds=7)


def main() -> None:
    """Measure the pairs and print the ratios."""
    console = Console()
    console.print(describe_hardware())
    table = Table("what", "companion", "the ordinary way", "ratio")
    for name, measure in (
        ("matrix product, 2048 x 2048", matrix_product),
        ("training step, ResNet-20, batch of 128", training_step),
        ("augmenting 5,000 images, DataLoader with 2 workers", lambda: input_pipeline(2)),
        ("augmenting 5,000 images, DataLoader's default", lambda: input_pipeline(0)),
        ("training step, net for tables, batch of 512", table_training),
        ("embedding 10,000 rows", table_embedding),
        *(
            (f"scoring {casting.IMAGES} images, {net}", lambda net=net: casting.inference(net))
            for net in casting.NETS
        ),
    ):
        ours, theirs = measure()
        table.add_row(name, f"{1000 * ours:.1f} ms", f"{1000 * theirs:.1f} ms", f"{theirs / ours:.1f}")
        if name.startswith(ROWS):
            rows = 512 if "512" in name else 10_000
            table.add_row("  rows a second", f"{rows / ours:,.0f}", f"{rows / theirs:,.0f}", "")
    console.print(table)


if __name__ == "__main__":
    main()
