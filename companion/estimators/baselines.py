"""Simple detectors that an autoencoder has to beat, with the same contract, and the choice among them all."""

import json
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from functools import cache, partial
from itertools import product
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from sklearn.decomposition import PCA
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from companion.data.series import StandardizerKind
from companion.detection.detectors import NeighborIndex
from companion.detection.metrics import pr_auc
from companion.estimators.autoencoders import ImageAE, ImageDetector, ResNetAE
from companion.estimators.base import AnomalyDetector, Count
from companion.estimators.fault_classifier import FaultClassifier
from companion.files import load_weights
from companion.models.resnet9 import ResNet9, patch_features
from companion.objectives.classification import normalize
from companion.objectives.synthetic_anomalies import STILL, as_floats, cut_paste
from companion.runs import load_run, weights_path
from companion.training import History

_MOST, _NUMBERS, _JUDGED = 2000, 2**25, 500  # images, and numbers, that a baseline keeps; images to choose by
Method = Literal["pca", "neighbours"]
Size = Annotated[int, Field(ge=0, le=2**20)]
Model = TypeVar("Model", ImageDetector, ResNetAE)
WINDOW_METHODS = ("pca", "neighbours", "net")
METHODS = ("neighbours", "pca", "patches", "still", "net", "classifier")  # for images, the simple ones first


class _Baseline(AnomalyDetector):
    """Principal components, or the training examples themselves, in the place of a net; no training."""

    method: Method
    size: int
    kept_: tuple[int, int]
    _rows: Any  #: of a child: examples as float64 (N, d)

    def fit(self, X: Any, y: None = None, **_: Any) -> Self:
        """Learn from normal examples; options of a training are not used."""
        self._parameters()
        self._learn_shapes(X)
        kept = self._rows(X)
        if self.method == "pca":
            pca = PCA(min(self.size, *kept.shape), svd_solver="full").fit(kept)
            kept = np.concatenate([pca.mean_[None], pca.components_])
        self.kept_, self.history_ = kept.shape, History()
        self.threshold_ = self.fpr_ = self.held_ = self.compared_ = None
        self.net_ = self._net()
        self.net_.load_state_dict({"kept": torch.from_numpy(kept.astype(np.float32))})
        return self

    def _net(self) -> Any:
        """What a file keeps as weights: mean and components, or the training examples."""
        net = torch.nn.Module()
        net.register_buffer("kept", torch.empty(self.kept_))
        return net

    def _kept(self) -> np.ndarray:
        return np.asarray(self.net_.get_buffer("kept").cpu().double())

    def _projected(self, rows: np.ndarray) -> np.ndarray:
        """Rows as the components give them back."""
        mean, components = np.split(self._kept(), [1])
        return np.asarray(mean + (rows - mean) @ components.T @ components)


class WindowBaseline(_Baseline, ResNetAE):
    """Principal components or nearest neighbours over windows, as for ``ResNetAE``; no training.

    The score is the root of the mean squared residual, or the mean distance to the nearest training windows;
    ``size`` counts components, without which the mean is left, or neighbours.

    Example:
        >>> beats = np.sin(np.linspace(0, 6, 32)) + 0.1 * np.random.default_rng(0).normal(size=(40, 32))
        >>> WindowBaseline("neighbours", 1).fit(beats).decision_function(beats[:2]).tolist()
        [0.0, 0.0]
    """

    _facts: ClassVar = ResNetAE._facts | {"kept_": tuple[Count, Count]}

    def __init__(
        self, method: Method = "pca", size: Size = 8, standardize: StandardizerKind = "window"
    ) -> None:
        self.method, self.size, self.standardize = method, size, standardize

    def _rows(self, X: np.ndarray) -> np.ndarray:
        standard = self._standard(self._windows(X))[0]
        return standard.reshape(len(standard), -1).astype(np.float64)

    def _score(self, X: np.ndarray) -> np.ndarray:
        rows = self._rows(X)
        if self.method == "pca":
            scores = np.sqrt(((rows - self._projected(rows)) ** 2).mean(axis=1))
        else:
            scores = NeighborIndex(min(self.size, self.kept_[0])).fit(self._kept()).score(rows)
        return np.where(np.isnan(self._windows(X)).all(axis=(1, 2)), np.nan, scores)


class ImageBaseline(_Baseline, ImageAE):
    """Principal components of the pixels, or the most similar training images; no training.

    An image is compared with what the components give back, or with the mean of its nearest neighbours, of
    which there are ``size``.
    """

    _facts: ClassVar = ImageAE._facts | {"kept_": tuple[Count, Count]}
    loss, scales = "mse", (1,)

    def __init__(self, method: Method = "neighbours", size: Count = 3) -> None:
        self.method, self.size = method, size

    def fit(self, X: Tensor, y: None = None, **_: Any) -> Self:
        """Learn from normal images, of very many or large ones from a sample."""
        most = max(20, min(_MOST, _NUMBERS // max(1, X[:1].numel())))
        return super().fit(X[np.sort(np.random.default_rng(0).permutation(len(X))[:most])])

    def _rows(self, X: Tensor) -> np.ndarray:
        """Pixels in [0, 1]."""
        return np.asarray(as_floats(self._examples(X)[0]).flatten(1).double())

    def reconstruct(self, X: Tensor) -> Tensor:
        """What the components give back, or the mean of the nearest: float32 (N, C, H, W) in [0, 1]."""
        check_is_fitted(self, "net_")
        rows = self._rows(X)
        if self.method == "pca":
            made = self._projected(rows)
        else:
            near = NeighborIndex(min(self.size, self.kept_[0])).fit(self._kept()).nearest(rows)[1]
            made = self._kept()[near].mean(axis=1)
        return torch.from_numpy(made).float().view(X.shape)


@cache
def _cifar_net() -> tuple[ResNet9, list[Tensor]]:
    """The net that chapter 4 trained on CIFAR-10, and mean and spread (C,) of what it takes."""
    weights, about = load_weights(weights_path(load_run("classifier-full-cpu"), "net"))
    net = ResNet9(int(about["net"].partition("-")[2]))
    net.load_state_dict(weights)
    return net.eval(), [torch.tensor(json.loads(about[name])) for name in ("mean", "std")]


class PatchMemory(_Baseline, ImageDetector):
    """Patches of normal images, in inner layers of the net that chapter 4 trained on CIFAR-10; no training.

    PatchCore (Roth et al. 2022), but the patches that are kept are no coreset, they are drawn at random. A
    place is as unusual as its mean distance from the nearest three, an image as its places in the mean. So
    many ``images`` are looked at, and so many of their ``patches`` kept.
    """

    _facts: ClassVar = ImageAE._facts | {"kept_": tuple[Count, Count]}
    method = "neighbours"

    def __init__(self, images: Count = 600, patches: Count = 10_000, seed: int = 0) -> None:
        self.images, self.patches, self.seed = images, patches, seed

    def _features(self, X: Tensor) -> np.ndarray:
        """Of a patch of 4x4 pixels in a row and column: float32 (N, H / 4, W / 4, d)."""
        net, moments = _cifar_net()
        grid = max(1, X.shape[2] // 4), max(1, X.shape[3] // 4)
        batches = torch.split(X.expand(-1, 3, -1, -1), 200)
        found = [patch_features(net, normalize(batch, *moments), (1, 2), grid) for batch in batches]
        return torch.cat(found).numpy()

    def _rows(self, X: Tensor) -> np.ndarray:
        order = torch.randperm(len(X), generator=torch.Generator().manual_seed(self.seed))
        found = self._features(self._examples(X[order[: self.images]])[0])
        found = found.reshape(-1, found.shape[3])
        most = min(self.patches, len(found))
        return found[np.sort(np.random.default_rng(self.seed).choice(len(found), most, replace=False))]

    def _maps(self, X: Tensor) -> Tensor:
        asked = self._features(X)
        memory = NeighborIndex(min(3, self.kept_[0])).fit(self._kept())
        distances = memory.score(asked.reshape(-1, asked.shape[3])).reshape(len(X), 1, *asked.shape[1:3])
        return F.interpolate(torch.from_numpy(distances).float(), self.shape_[1:])[:, 0]


def _best(fits: Mapping[str, Callable[[], Model]], held: Any, faults: Any) -> Model:
    """Fit all, and keep the one with the highest PR-AUC on held-out normals and as many faults."""
    many = max(len(held), len(faults))  # so that 0.5 is guessing; the fewer are repeated
    found, models = dict[str, float](), {name: fit() for name, fit in fits.items()}
    for name in [name for name in fits if "worst_" in models[name]._facts]:
        models[f"{name}, worst place"] = copy(models[name])
        models[f"{name}, worst place"].worst_ = True
    for name, model in models.items():
        scores = [np.resize(model.decision_function(part), many) for part in (held, faults)]
        found[name] = pr_auc(np.repeat((0, 1), many), np.concatenate(scores))
    best = models[max(found, key=lambda name: found[name])]
    best.compared_ = found
    return best


def choose_image_detector(
    learn: Tensor, held: Tensor, known: Tensor | None = None, others: Tensor | None = None, *,
    epochs: int = 30, names: Sequence[str] = METHODS,
) -> ImageDetector:  # fmt: skip
    """Fit simple and learned detectors to normal images uint8 (N, C, H, W), and keep the best.

    It has the highest PR-AUC on normals ``held`` out and faults: ``others`` than the ``known`` ones, which
    teach a classifier, or else held-out normals with a pasted rectangle, large or small, which imitates no
    fault. Each is tried with the mean of its map and with its most unusual place. ``names`` limits the
    choice; ``compared_`` of the result has the PR-AUC of each.
    """
    held, faults = held[:_JUDGED], others
    if faults is None:
        generator, floats = torch.Generator().manual_seed(0), as_floats(held)
        pasted = [cut_paste(floats, generator), cut_paste(floats, generator, 0.0005, 0.005)]
        faults = (255 * torch.cat(pasted)).round().to(torch.uint8)
    batch = max(8, min(128, len(learn) // 16))  # some steps an epoch, however few the images
    models: dict[str, ImageDetector] = {
        "neighbours": ImageBaseline("neighbours"), "pca": ImageBaseline("pca", 16), "patches": PatchMemory(),
        "still": ImageAE(camera=STILL, batch_size=batch), "net": ImageAE(batch_size=batch),
    }  # fmt: skip
    fits = {name: partial(model.fit, learn, epochs=epochs, progress=name) for name, model in models.items()}
    if known is not None and len(known):
        every, labels = torch.cat([learn, known]), np.repeat((0, 1), (len(learn), len(known)))
        model = FaultClassifier(num_steps=10 * epochs)
        fits["classifier"] = partial(model.fit, every, labels, progress="classifier")
    if names == ("classifier",) and "classifier" not in fits:
        raise ValueError("the classifier learns from known faults, of which it needs at least two")
    return _best({name: fits[name] for name in names if name in fits}, held, faults)


def inject(windows: np.ndarray) -> np.ndarray:
    """Normal windows (N, C, L), each five times with a fault in one channel: float64 (5 N, C, L).

    Three samples are raised by four standard deviations of the channel, or the second half is raised by two,
    stands still, has half its height, or half as much noise as the channel varies.
    """
    rng, parts = np.random.default_rng(0), []
    spread, half = np.nanstd(windows, axis=(0, 2)), windows.shape[2] // 2
    for kind in range(5):
        changed = np.array(windows, dtype=np.float64)
        for window, channel in zip(changed, rng.integers(0, windows.shape[1], len(windows)), strict=True):
            start = rng.integers(0, max(1, windows.shape[2] - 3))
            end, peak = window[channel, half:], window[channel, start : start + 3]  # views
            middle = np.nanmean(end) if np.isfinite(end).any() else 0.0
            noise = spread[channel] * rng.normal(size=len(end))
            peak += 4 * spread[channel] * (kind == 0)
            end[:] = (end, end + 2 * spread[channel], end[0], (end + middle) / 2, end + noise / 2)[kind]
        parts.append(changed)
    return np.concatenate(parts)


def choose_window_detector(
    learn: np.ndarray, held: np.ndarray, known: np.ndarray | None = None, *, epochs: int = 30,
    names: Sequence[str] = WINDOW_METHODS, scales: Sequence[StandardizerKind] = ("window", "channel"),
) -> ResNetAE:  # fmt: skip
    """As :func:`choose_image_detector`, for windows (N, C, L) and known faults, or those of :func:`inject`.

    ``scales`` are ways to standardise, each of which is tried with each method.
    """
    models, depth = dict[str, ResNetAE](), max(1, min(4, learn.shape[2].bit_length() - 1))
    for name, scale in product(names, scales):
        simple = WindowBaseline("pca", 8, scale) if name == "pca" else WindowBaseline("neighbours", 1, scale)
        models[f"{name}, {scale}"] = ResNetAE(depth=depth, standardize=scale) if name == "net" else simple
    fits = {name: partial(model.fit, learn, epochs=epochs, progress=name) for name, model in models.items()}
    return _best(fits, held, inject(held) if known is None else known)
