"""Data sets: one registry, and loaders that give real data or a labelled synthetic stand-in.

The registry (:mod:`companion.data.sources`) can be imported without PyTorch; the loaders are imported
when they are first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from companion.data.cifar10 import Cifar10, Images, load_cifar10

__all__ = ["Cifar10", "Images", "load_cifar10"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from companion.data import cifar10

        return getattr(cifar10, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
