"""`python -m benchmarks`: training and input pipeline, each beside the ordinary way.

Each pair is measured in turns in one run, so that a change in the machine's speed meets both.
"""

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
from companion.models.cost import interleaved
from companion.models.resnet import CifarResNet
from companion.objectives.classification import ImageClassification, normalize, random_shift_flip
from companion.training import FitConfig, fit

MEAN, STD = torch.tensor([0.49, 0.48, 0.45]), torch.tensor([0.25, 0.24, 0.26])
COMPUTE = pick_compute()
Pair = tuple[float, float]


def medians(ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> Pair:
    """Median seconds of two functions, called in turns."""
    times = interleaved({"ours": ours, "theirs": theirs}, rounds)
    return times["ours"].median, times["theirs"].median


def training_step(steps: int = 5, size: int = 128) -> Pair:
    """5 training steps of ResNet-20, batch of 128; the ordinary way is float32 and NCHW."""
    images = torch.randint(0, 256, (1024, 3, 32, 32), dtype=torch.uint8)
    labels = torch.randint(0, 10, (1024,))
    net, theirs = CifarResNet(20), CifarResNet(20).to(COMPUTE.device)
    objective, config = ImageClassification(MEAN, STD), FitConfig(num_steps=steps, batch_size=size)
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    batch = ((images[:size].float() / 255 - MEAN[:, None, None]) / STD[:, None, None]).to(COMPUTE.device)
    target = labels[:size].to(COMPUTE.device)

    def ordinary() -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            loss = F.cross_entropy(theirs(batch), target)
            loss.backward()
            optimizer.step()
        loss.item()  # waits for a GPU, as the end of ``fit`` does

    return medians(lambda: fit(net, (images, labels), objective, config, compute=COMPUTE), ordinary, rounds=3)


class PictureData(Dataset[torch.Tensor]):
    """CIFAR-like images as torchvision's data sets give them: one by one, through PIL."""

    def __init__(self, images: np.ndarray) -> None:
        self.images = images
        augment = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]
        scale = [transforms.ToTensor(), transforms.Normalize(MEAN.tolist(), STD.tolist())]
        self.transform = transforms.Compose(augment + scale)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        image: torch.Tensor = self.transform(Image.fromarray(self.images[index]))
        return image


def input_pipeline(many: int = 5000, size: int = 128) -> Pair:
    """Augmenting 5,000 images in batches; the ordinary way is a DataLoader with 2 workers."""
    images = torch.randint(0, 256, (many, 3, 32, 32), dtype=torch.uint8)
    pictures = PictureData(images.permute(0, 2, 3, 1).contiguous().numpy())
    loader = DataLoader(pictures, size, num_workers=2, persistent_workers=True)

    def ours() -> None:
        for chosen in torch.randperm(many).split(size):
            normalize(random_shift_flip(images.index_select(0, chosen)), MEAN, STD)

    return medians(ours, lambda: list(loader), rounds=5)


def main() -> None:
    """Measure the pairs and print the ratios."""
    console = Console()
    console.print(describe_hardware(COMPUTE.device))
    table = Table("what", "companion", "the ordinary way", "ratio")
    for measure in (training_step, input_pipeline):
        ours, theirs = measure()
        shown = [f"{1000 * seconds:.1f} ms" for seconds in (ours, theirs)]
        table.add_row(measure.__doc__, *shown, f"{theirs / ours:.1f}")
    console.print(table)


if __name__ == "__main__":
    main()
