"""Few generated images in the shape of CIFAR-10, tables and waveforms, in the place of real ones."""

import numpy as np
import torch

from companion.compute import Compute
from companion.data.cifar10 import RINGS, Cifar10, Images, synthetic_rings
from companion.data.tables import synthetic_table
from companion.experiments.base import Context

CPU = Compute(torch.device("cpu"), None)
CONTEXT = Context(CPU, progress=False)
MOMENTS = (torch.full((3,), 0.5), torch.full((3,), 0.25))  # mean and spread of pixels
SMALL_TABLES = {
    "adult": lambda: synthetic_table("adult", 400, num_categorical=2, num_classes=2),
    "california": lambda: synthetic_table("california", 400, num_categorical=0, num_classes=None),
}


def load_small() -> Cifar10:
    images, labels = synthetic_rings(1000, seed=0)
    parts = [Images(images[a:b], labels[a:b]) for a, b in ((0, 600), (600, 800), (800, 1000))]
    return Cifar10(*parts, class_names=RINGS, source="a test", digest="small", synthetic=True)


def waves(count, length=32, channels=None, seed=0):
    rng = np.random.default_rng(seed)
    shape = (count, length) if channels is None else (count, channels, length)
    phase = rng.uniform(0, 0.5, (*shape[:-1], 1))
    return (np.sin(np.linspace(0, 6, length) + phase) + 0.05 * rng.normal(size=shape)).astype(np.float32)
