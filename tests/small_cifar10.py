"""A thousand generated images in the shape of CIFAR-10, for tests of what is built on top of the data."""

from __future__ import annotations

from companion.data.cifar10 import SHAPES, Cifar10, Images, synthetic_shapes


def load_small() -> Cifar10:
    images, labels = synthetic_shapes(1000, seed=0)
    parts = [Images(images[a:b], labels[a:b]) for a, b in ((0, 600), (600, 800), (800, 1000))]
    return Cifar10(*parts, class_names=SHAPES, source="a test", digest="small", synthetic=True)
