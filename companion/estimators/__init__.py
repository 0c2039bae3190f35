"""Detectors for data of your own, with the contract of scikit-learn."""

from companion.estimators.autoencoders import ImageAE, ResNetAE
from companion.estimators.baselines import ImageBaseline, PatchMemory, WindowBaseline, choose_image_detector
from companion.estimators.events import EventDetector
from companion.estimators.fault_classifier import FaultClassifier

__all__ = [
    "EventDetector", "FaultClassifier", "ImageAE", "ImageBaseline", "PatchMemory", "ResNetAE",
    "WindowBaseline", "choose_image_detector",
]  # fmt: skip
