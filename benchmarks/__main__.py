"""`python -m benchmarks`: the training step and the input pipeline, each beside the ordinary way.

Each pair is measured in turns in one run, so that a change in the machine's speed meets both.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from companion.compute import describe_hardware, pick_compute
from companion.learning.augment import normalise, random_shift_flip
from companion.learning.config import FitConfig
from companion.learning.loop import fit
from companion.learning.objectives import ImageClassification
from companion.models.cifar_resnet import CifarResNet

BATCH = 128
MEAN, STD = torch.tensor([0.49, 0.48, 0.45]), torch.tensor([0.25, 0.24, 0.26])


def medians(ours: Callable[[], None], theirs: Callable[[], None], rounds: int) -> tuple[float, float]:
    """Median seconds of two functions, called in turns after one warming call each."""
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(rounds + 1):
        for function, kept in zip((ours, theirs), times, strict=True):
            start = time.perf_counter()
            function()
            if turn:
                kept.append(time.perf_counter() - start)
    return float(np.median(times[0])), float(np.median(times[1]))


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
        lambda: void(fit(ours, (images, labels), objective, config, compute=compute)), ordinary, rounds=3
    )
    return first / steps, second / steps


def void(_: object) -> None:
    """Forget a result."""


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


def input_pipeline(num_workers: int, num_images: int = 5000, repeats: int = 10) -> tuple[float, float]:
    """Seconds to augment and normalise images in batches, and in a DataLoader.

    The batched way passes over the images ``repeats`` times in a turn, for one pass is too short to time.
    """
    images = torch.randint(0, 256, (num_images, 3, 32, 32), dtype=torch.uint8)
    loader = DataLoader(
        PictureData(images.permute(0, 2, 3, 1).contiguous().numpy()),
        batch_size=BATCH,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
    )

    def ours() -> None:
        for _ in range(repeats):
            for chosen in torch.randperm(num_images).split(BATCH):
                normalise(random_shift_flip(images.index_select(0, chosen)), MEAN, STD)

    def theirs() -> None:
        for _ in loader:
            pass

    first, second = medians(ours, theirs, rounds=5)
    return first / repeats, second


def main() -> None:
    """Measure both pairs and print the ratios."""
    console = Console()
    console.print(describe_hardware())
    table = Table("what", "companion", "the ordinary way", "ratio")
    for name, measure in (
        ("matrix product, 2048 x 2048", matrix_product),
        ("training step, ResNet-20, batch of 128", training_step),
        ("augmenting 5,000 images, DataLoader with 2 workers", lambda: input_pipeline(2)),
        ("augmenting 5,000 images, DataLoader's default", lambda: input_pipeline(0)),
    ):
        ours, theirs = measure()
        table.add_row(name, f"{1000 * ours:.1f} ms", f"{1000 * theirs:.1f} ms", f"{theirs / ours:.1f}")
    console.print(table)


if __name__ == "__main__":
    main()
