"""Few generated images in the shape of CIFAR-10, and small generated tables, in the place of real ones."""

from companion.data.cifar10 import SHAPES, Cifar10, Images, synthetic_shapes
from companion.data.tables import synthetic_table

SMALL_TABLES = {
    "adult": lambda: synthetic_table("adult", 400, num_categorical=2, num_classes=2),
    "california": lambda: synthetic_table("california", 400, num_categorical=0, num_classes=None),
}


def load_small() -> Cifar10:
    images, labels = synthetic_shapes(1000, seed=0)
    parts = [Images(images[a:b], labels[a:b]) for a, b in ((0, 600), (600, 800), (800, 1000))]
    return Cifar10(*parts, class_names=SHAPES, source="a test", digest="small", synthetic=True)
