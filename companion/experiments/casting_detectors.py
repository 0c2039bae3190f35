"""The detectors of chapter 9: each is fitted on normal casting images and then scores others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from sklearn.decomposition import PCA
from torch import Tensor

from companion.data.casting import load_casting
from companion.data.images import ImageSet, SplitImages, share_by_hash
from companion.detection.anomaly_maps import ErrorKind, image_scores, multiscale_map
from companion.estimators import FaultClassifier, ImageAE
from companion.experiments.base import Config, Context
from companion.objectives.synthetic_anomalies import PAINTERS, STILL, CameraJitter, OutlierExposure, as_floats
from companion.training import FitConfig, History

GRAY, COLOR = (64, 64), (32, 48)  # height and width of the two views
CAMERA = CameraJitter()  # how far training moves the camera


class CastingConfig(Config):
    """What is fitted and how it is judged."""

    epochs: int = 80  #: of the published recipe, at most
    patience: int = 12  #: epochs without a lower validation loss after which it stops
    moved_epochs: int = 12  #: of the autoencoders with a moving camera
    moved_lr: float = 2e-3  #: their learning rate at the start; it falls to 0 as a cosine
    latent: int = 32  #: numbers in the code of the convolutional one of these
    residual_widths: tuple[int, ...] = (8, 16, 32)  #: channels of the residual one's stages
    residual_latent: int = 2  #: channels of its code
    components: int = 16  #: of the PCA
    memory_images: int = 600  #: normal images whose patches are kept
    memory_patches: int = 10_000  #: how many of their patches
    width: int = 8  #: channels of the small residual net that tells normal images from faults
    fit: FitConfig = FaultClassifier().recipe()  #: how that one learns
    tnr: float = 0.95  #: the share of validation normals that ``tnr_target`` leaves alone
    fpr: float = 0.01  #: the share of disturbed validation normals that ``fixed_fpr`` flags
    share: float = 1.0  #: of the images that are used
    repeats: int = 1000  #: samples of the bootstrap
    points: int = 80  #: how many points a training curve is averaged down to


@dataclass(frozen=True)
class Views:
    """The same images grey and square, as the published baseline sees them, or small and in colour."""

    gray: Tensor  #: uint8 (N, 1, 64, 64)
    color: Tensor  #: uint8 (N, 3, 32, 48)

    def __len__(self) -> int:
        return len(self.gray)

    def __getitem__(self, chosen: slice | Tensor) -> Views:
        return Views(self.gray[chosen], self.color[chosen])


class Casting(NamedTuple):
    """The casting images; of copies one is kept."""

    images: SplitImages  #: all parts as :func:`companion.data.casting.load_casting` gives them, in colour
    train: Views  #: normal images to learn from
    validation: Views  #: normal images for early stopping and thresholds
    disturbed: Views  #: the same behind haze and obstacles, by a camera that moved
    known: Views  #: half of the known spills, for training
    held: Views  #: the other half, for thresholds
    development: Views  #: a fifth of the test images, for choices between recipes
    test: Views  #: the others
    labels: dict[str, np.ndarray]  #: by part, int64 (N,), 0 for normal and 1 for anomalous


@cache
def load(share: float = 1.0) -> Casting:
    """The casting images, or their stand-in, in both views; with ``share``, so many of each part."""
    gray, color = load_casting(GRAY), load_casting(COLOR, color=True)
    held = share_by_hash(color.tuning.distinct().hashes, 0.5, salt="hold")

    def cut(images: SplitImages) -> dict[str, ImageSet]:
        names = ("train", "validation", "development", "test")
        parts = {name: getattr(images, name).distinct() for name in names}
        spills = images.tuning.distinct()
        return parts | {"known": spills.take(~held), "held": spills.take(held)}

    parts, labels, large = dict[str, Views](), dict[str, np.ndarray](), cut(gray)
    for name, small in cut(color).items():
        keep = some(small.labels.numpy(), share)
        parts[name] = Views(large[name].take(keep).images, small.take(keep).images)
        labels[name] = small.labels.numpy()[keep]
    normal = parts["validation"]
    disturbed = Views(_disturbed(normal.gray), _disturbed(normal.color))
    return Casting(images=color, disturbed=disturbed, labels=labels, **parts)


def some(labels: np.ndarray, share: float) -> np.ndarray:
    """A mask of the first images of either label, at least 120 where there are so many."""
    own = pd.Series(labels).groupby(labels)
    return np.asarray(own.cumcount() < np.maximum(120, (share * own.transform("size")).round()))


def _disturbed(images: Tensor) -> Tensor:
    unit = torch.zeros(images.shape[1]), torch.ones(images.shape[1])
    return OutlierExposure(*unit, camera=CAMERA).augmented(images, torch.Generator().manual_seed(7))


class Detector(NamedTuple):
    """A detector that can score."""

    score: Callable[[Views], np.ndarray]  #: floats (N,) of N images, the higher the more unusual
    history: History = History()  #: what was measured while training; empty if nothing was trained


def fit_pca(config: CastingConfig, data: Casting, seed: int) -> Detector:
    """The mean absolute error of a reconstruction from few principal components."""

    def rows(views: Views) -> np.ndarray:
        return views.color.flatten(1).numpy().astype(np.float32) / 255

    pca = PCA(config.components, svd_solver="randomized", random_state=seed).fit(rows(data.train))
    return Detector(lambda v: np.abs(rows(v) - pca.inverse_transform(pca.transform(rows(v)))).mean(axis=1))


def fit_autoencoder(config: CastingConfig, data: Casting, seed: int, context: Context, name: str) -> ImageAE:
    """The published recipe, on grey images of 64x64, or a smaller one in colour: ``name`` decides."""
    view, epochs = "color", config.moved_epochs
    options: dict[str, Any] = {"latent": config.latent, "lr": config.moved_lr, "camera": CAMERA}
    if name == "published":
        view, epochs = "gray", config.epochs
        options = {"latent": 512, "loss": "mse", "lr": 3e-4, "camera": STILL, "patience": config.patience}
    elif name == "still":
        options["camera"] = STILL
    elif name == "residual":
        options |= {"net": name, "latent": config.residual_latent, "widths": config.residual_widths}
    learn, held = (getattr(part, view) for part in (data.train, data.validation))
    return context.fit_estimator(name, ImageAE(seed=seed, **options), learn, epochs=epochs, validation=held)


def error_scores(model: ImageAE, error: ErrorKind, scales: tuple[int, ...], view: str = "color") -> Detector:
    """A fitted autoencoder that scores by another kind of map."""

    def score(images: Tensor) -> np.ndarray:
        return image_scores(multiscale_map(as_floats(images), model.reconstruct(images), error, scales))

    return Detector(lambda views: score(getattr(views, view)), model.history_)


def fit_classifier(
    config: CastingConfig, data: Casting, seed: int, context: Context, name: str, kinds: Sequence[str],
    occlusions: float = 0.4, fogged: float = 0.15, fog_faults: bool = False, **training: Any,
) -> tuple[FaultClassifier, Detector]:  # fmt: skip
    """A small residual net that tells normal images from those kinds of fault, "known" or painted ones."""
    known = data.known.color[: len(data.known) if "known" in kinds else 0]
    images, count = torch.cat([data.train.color, known]), len(data.train)
    model = FaultClassifier(
        config.width, config.fit.num_steps, occlusions=occlusions, fogged=fogged, fog_faults=fog_faults,
        camera=CAMERA, lr=config.fit.lr, batch_size=config.fit.batch_size, seed=seed,
    )  # fmt: skip
    faulty, paint = np.arange(len(images)) >= count, [PAINTERS[kind] for kind in kinds if kind != "known"]
    context.fit_estimator(name, model, images, faulty, paint=paint, **training)
    return model, Detector(lambda views: model.decision_function(views.color), model.history_)
