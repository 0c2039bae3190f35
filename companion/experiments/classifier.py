"""Chapter 4: how well does a residual net classify CIFAR-10 in a given time, and what is its recipe worth?"""

import json
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import nn

from companion.compute import Compute, seed_everything
from companion.data.cifar10 import load_cifar10
from companion.experiments import degradation
from companion.experiments.base import Config, Context, from_table, window_means
from companion.files import load_weights
from companion.models.resnet import count_parameters, resnet18
from companion.models.resnet9 import ResNet9
from companion.objectives.classification import Batch, ImageClassification
from companion.runs import SeedResult, load_run, weights_path
from companion.training import FitConfig, evaluate


class ClassifierConfig(Config):
    """What is trained and how."""

    net: str  #: see :func:`build`
    train_size: int | None = None  #: how many training images are used; ``None`` for all
    eval_size: int | None = None  #: how many images of each split are evaluated; ``None`` for all
    max_shift: int = 4  #: see :class:`companion.objectives.classification.ImageClassification`
    flip: bool = True  #: likewise
    cutout: int = 0  #: likewise
    label_smoothing: float = 0.1  #: likewise
    fit: FitConfig  #: the recipe
    points: int = 100  #: how many points a training curve is averaged down to


def build(net: str) -> nn.Module:
    """The net ``"resnet9-<width>"``, ``"resnet18"`` or ``"resnet18-<width>"``, or one of chapter 1."""
    kind, _, number = net.partition("-")
    if kind == "resnet18":
        return resnet18(10, stem="cifar", width=int(number or 64))
    return ResNet9(int(number)) if kind == "resnet9" and number.isdecimal() else degradation.build(net)


def prepare(config: ClassifierConfig) -> tuple[dict[str, Batch], ImageClassification]:
    """The three splits as (images, labels), and the objective on them."""
    options = config.model_dump(include={"max_shift", "flip", "cutout", "label_smoothing"})
    return degradation.learned_from(config.train_size, **options)


def train(
    config: ClassifierConfig, seed: int, context: Context, name: str = "net"
) -> tuple[nn.Module, SeedResult]:
    """Train one net, and measure it on the validation split; ``train_error`` is of its last tenth."""
    splits, objective = prepare(config)
    validation: Batch = tuple(t[: config.eval_size] for t in splits["validation"])
    seed_everything(seed)
    model, result = build(config.net), SeedResult(seed=seed)
    history = context.fit(
        name, model, splits["train"], objective, config.fit, seed, result=result,
        evaluation=lambda net: evaluate(net, validation, objective, context.compute),
    )  # fmt: skip
    curves = {metric: window_means(values, config.points) for metric, values in history.train.items()}
    curves["first_loss"] = result.curves.pop(f"{name}.first_loss")
    curves |= {f"validation_{metric}": values for metric, values in history.evaluations.items()}
    curves["seconds"] = [round(seconds, 2) for seconds in history.eval_seconds]
    result.curves.update(curves)
    mirrored = evaluate(model, validation, replace(objective, mirrored_views=True), context.compute)
    for metric in ("validation_error", "validation_loss"):
        result.metrics[metric] = curves[metric][-1]
    result.metrics["train_error"] = window_means(history.train["error"], 10)[-1]
    result.metrics["validation_error_with_mirror_images"] = mirrored["error"]
    result.metrics["parameters"] = float(count_parameters(model))
    return model, result


def run(config: ClassifierConfig, seed: int, context: Context) -> SeedResult:
    """Train the net, keep its weights as ``"net"``, and look at the test set once, with the last weights."""
    model, result = train(config, seed, context)
    splits, objective = prepare(config)
    moments = {name: json.dumps(getattr(objective, name).tolist()) for name in ("mean", "std")}
    classes = json.dumps(load_cifar10().class_names)
    context.keep_weights("net", model, net=config.net, **moments, classes=classes)
    test: Batch = tuple(t[: config.eval_size] for t in splits["test"])
    for name, views in (("test_error", False), ("test_error_with_mirror_images", True)):
        judged = evaluate(model, test, replace(objective, mirrored_views=views), context.compute)
        result.metrics[name] = judged["error"]
    return result


class TrainedClassifier(NamedTuple):
    """A trained net with what it needs to answer."""

    model: nn.Module  #: the net, in evaluation mode
    objective: ImageClassification  #: normalises images as in training
    class_names: tuple[str, ...]  #: of the net's outputs, in their order


def trained_classifier(compute: Compute, run: str = "classifier-full-cpu") -> TrainedClassifier:
    """The net whose weights a recorded run kept, on the device of ``compute``."""
    weights, about = load_weights(weights_path(load_run(run), "net"))
    model = build(about["net"])
    model.load_state_dict(weights)
    mean, std = (torch.tensor(json.loads(about[name])) for name in ("mean", "std"))
    names = tuple(json.loads(about["classes"]))
    return TrainedClassifier(compute.model(model).eval(), ImageClassification(mean, std), names)


CLASSIFIER = from_table("classifier", ClassifierConfig, run, degradation.data_info)


def changes(fit: FitConfig) -> dict[str, dict[str, Any]]:
    """What one choice of the recipe changes, by its name; all variants see the same number of images."""
    return {
        "as it is": {},
        "no mirroring": {"flip": False},
        "no shifts": {"max_shift": 0},
        "cutout": {"cutout": 8},
        "no label smoothing": {"label_smoothing": 0.0},
        "no weight decay": {"weight_decay": 0.0},
        "no Nesterov": {"nesterov": False},
        "no momentum": {"nesterov": False, "momentum": 0.0, "lr": fit.lr / (1 - fit.momentum)},
        "constant lr": {"schedule": "constant"},
        "lr / 3": {"lr": fit.lr / 3},
        "lr x 3": {"lr": fit.lr * 3},
        "batch of 64": {
            "batch_size": max(1, fit.batch_size // 4), "lr": fit.lr / 4, "num_steps": fit.num_steps * 4,
            "warmup_steps": fit.warmup_steps * 4, "eval_every": fit.num_steps * 4,
        },
    }  # fmt: skip


VARIANTS = tuple(changes(FitConfig(num_steps=1)))


class RecipeConfig(Config):
    """The recipe, and which of ``VARIANTS`` are trained."""

    base: ClassifierConfig
    variants: tuple[str, ...] = VARIANTS


def override(base: ClassifierConfig, variant: str) -> ClassifierConfig:
    """``base`` with one choice changed."""
    fit, own = base.fit, changes(base.fit)[variant]
    of_fit = own.keys() <= FitConfig.model_fields.keys()
    return base.model_copy(update={"fit": fit.model_copy(update=own)} if of_fit else own)


def run_recipe(config: RecipeConfig, seed: int, context: Context) -> SeedResult:
    """Train the net once for each variant; only the validation split is looked at."""
    result = SeedResult(seed=seed)
    for variant in config.variants:
        result.include(variant, train(override(config.base, variant), seed, context, variant)[1])
    return result


RECIPE = from_table("recipe", RecipeConfig, run_recipe, degradation.data_info)
