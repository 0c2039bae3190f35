"""The detector that chapter 9 recommends: a classifier of normal images and of known and painted faults."""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from sklearn.utils.validation import check_is_fitted
from torch import Generator, Tensor

from companion.estimators.autoencoders import Batch, ImageDetector
from companion.estimators.base import Count, Positive
from companion.models.blocks import BasicResidualBlock
from companion.models.resnet import ResNet
from companion.objectives.synthetic_anomalies import PAINTERS, CameraJitter, Change, OutlierExposure
from companion.training import FitConfig

Share = Annotated[float, Field(ge=0, le=1)]
CUT = PAINTERS["cut"]


class FaultClassifier(ImageDetector):
    """A small residual net with one output, the logit of a fault; the score is its mean over mirror images.

    It learns from normal images, known faults, and normal images into which functions paint faults, under a
    moving camera: see :class:`companion.objectives.synthetic_anomalies.OutlierExposure`.

    Args:
        width: channels of the first of three blocks; each further one has twice as many.
        occlusions, fogged: shares of images that get an obstacle, and that are seen through haze.
        fog_faults: whether faults are, too: else the net learns that haze is normal, and misses faults in it.

    Example:
        >>> images = torch.randint(90, 110, (40, 3, 16, 16), dtype=torch.uint8)
        >>> model = FaultClassifier(4, num_steps=2).fit(images, np.repeat([0, 1], [30, 10]))
        >>> model.decision_function(images[:3]).shape, model.maps(images[:3]).shape
        ((3,), torch.Size([3, 16, 16]))
    """

    _facts: ClassVar = ImageDetector._facts | {"mean_": list[float], "std_": list[Positive]}
    net_: ResNet
    _faults: tuple[Tensor | None, tuple[Change, ...]] = None, ()  # known ones and painters, while it learns

    def __init__(
        self, width: Count = 8, num_steps: Count = 300, *, occlusions: Share = 0.4, fogged: Share = 0.15,
        fog_faults: bool = True, camera: CameraJitter = CameraJitter(),  # noqa: B008
        lr: Positive = 5e-3, batch_size: Batch = 96, seed: int = 0,
    ) -> None:  # fmt: skip
        self.width, self.num_steps, self.occlusions, self.fogged = width, num_steps, occlusions, fogged
        self.fog_faults, self.camera = fog_faults, camera
        self.lr, self.batch_size, self.seed = lr, batch_size, seed

    def fit(self, X: Tensor, y: Any = None, *, paint: Sequence[Change] = (CUT,), **training: Any) -> Self:
        """Learn from images, of which ``y`` (N,) says whether they are normal, 0, or known faults, 1.

        ``paint`` are functions as those of :mod:`companion.objectives.synthetic_anomalies`, which paint one
        kind of fault each; if not told, they paste rectangles. Without ``y`` all images are normal.
        """
        labels = np.zeros(len(X)) if y is None else np.asarray(y)
        if labels.shape != (len(X),) or not np.isin(labels, (0, 1)).all():
            raise ValueError(f"need a label of 0 or 1 for each of {len(X)} images, not {labels.shape}")
        known = X[torch.from_numpy(labels == 1)]
        if len(known) == 0 and not paint:
            raise ValueError("there is no fault to learn from: give labels, or functions that paint some")
        self._faults = known if len(known) else None, tuple(paint)
        return super().fit(X[torch.from_numpy(labels == 0)], **training)

    def recipe(self, count: int = 0, epochs: int = 0, watched: bool = False) -> FitConfig:
        """How it learns, however many the images are."""
        return FitConfig(
            num_steps=self.num_steps, batch_size=self.batch_size, lr=self.lr, optimizer="adamw",
            weight_decay=0.01, schedule="cosine", warmup_steps=max(1, self.num_steps // 8),
        )  # fmt: skip

    def _learn_shapes(self, X: Tensor) -> None:
        super()._learn_shapes(X)
        sample = self._examples(X[:2000])[0] / 255
        self.mean_ = sample.mean(dim=(0, 2, 3)).tolist()
        self.std_ = sample.std(dim=(0, 2, 3)).clamp_min(1e-3).tolist()

    def _net(self) -> ResNet:
        return ResNet(BasicResidualBlock, (1, 1, 1), 1, stem="cifar", width=self.width)

    def _objective(self) -> OutlierExposure:
        return OutlierExposure(
            torch.tensor(self.mean_), torch.tensor(self.std_), *self._faults, camera=self.camera,
            occlusions=self.occlusions, fogged=self.fogged, fog_faults=self.fog_faults,
        )  # fmt: skip

    def calibrate(self, X: Tensor | None = None, fpr: float = 0.01) -> Self:
        """As other detectors, but by normal images that are disturbed as in training."""
        check_is_fitted(self, "net_")
        disturbed = None if X is None else self._objective().augmented(X, Generator().manual_seed(7))
        return super().calibrate(disturbed, fpr)

    @torch.inference_mode()
    def _maps(self, X: Tensor) -> Tensor:
        """Logits at each place, whose mean is the score: class activation maps, Zhou et al. 2016."""
        pixels = self._objective().normalized((X / 255).to(self.net_.fc.weight.device))
        one, other = (self.net_.maps(each) for each in (pixels, pixels.flip(3)))
        return F.interpolate((one + other.flip(3)) / 2, self.shape_[1:])[:, 0].cpu()
