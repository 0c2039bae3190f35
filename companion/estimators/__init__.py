"""Detectors for data of your own, with the contract of scikit-learn."""

from companion.estimators.autoencoders import ImageAE, ResNetAE, WindowBaseline
from companion.estimators.events import EventDetector

__all__ = ["EventDetector", "ImageAE", "ResNetAE", "WindowBaseline"]
