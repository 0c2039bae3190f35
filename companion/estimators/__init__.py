"""Detectors for data of your own, with the contract of scikit-learn.

Each is imported when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from companion.estimators.autoencoders import ImageAE, ResNetAE
    from companion.estimators.events import EventDetector

__all__ = ["EventDetector", "ImageAE", "ResNetAE"]
_HOMES = {"EventDetector": "events"}


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'autoencoders')}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
