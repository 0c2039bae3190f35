"""What the interactive pieces of the pages are made of: recorded numbers as JSON, and nets as ONNX.

A piece is ``NAME.json`` and, where a net answers, ``NAME.onnx``; ``book/_static/pieces/NAME.mjs`` reads them.
The function of its name writes both to a folder, or raises a DataError where its data are out of reach.
"""

import json
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.decomposition import PCA
from torch import Tensor, nn

from companion.compute import Compute
from companion.data.cifar10 import load_cifar10
from companion.data.download import DataError
from companion.data.ecg import CLASS_NAMES, load_ecg5000
from companion.estimators import FaultClassifier
from companion.experiments.casting_detectors import load
from companion.experiments.classifier import trained_classifier
from companion.experiments.waveforms import recorded_detector
from companion.files import atomic_path
from companion.inspection import fit_temperature, predict
from companion.models.resnet9 import Residual
from companion.objectives.classification import normalize
from companion.objectives.synthetic_anomalies import as_floats, empty_mould, spill
from companion.runs import load_run, weights_path

OPSET = 20
TOLERANCE = 1e-4  # of an output's absolute difference from PyTorch's
Calculate = Callable[..., dict[str, Tensor]]


def _write(folder: Path, name: str, data: Any = None, **content: Any) -> None:
    if data is not None and data.synthetic:
        raise DataError("its data are out of reach.")
    with atomic_path(folder / f"{name}.json") as part:
        part.write_text(json.dumps(content), encoding="utf8")


def _shrink(path: Path) -> None:
    """Simplify an ONNX file, and keep in half the bytes what float16 holds exactly, as recorded nets."""
    import onnx
    from onnxscript.optimizer import optimize

    model = onnx.load(path)
    for weight in model.graph.initializer:
        name, whole = weight.name, onnx.numpy_helper.to_array(weight)
        half = whole.astype(np.float16)
        if whole.dtype == np.float32 and np.array_equal(half, whole):
            weight.CopyFrom(onnx.numpy_helper.from_array(half, f"{name}.half"))
            back = onnx.helper.make_node("Cast", [weight.name], [name], to=onnx.TensorProto.FLOAT)
            model.graph.node.insert(0, back)
    onnx.save(optimize(model), path)


@torch.inference_mode()
def export_onnx(net: nn.Module, path: Path, calculate: Calculate, **inputs: Tensor) -> None:
    """Write ``calculate(net, *inputs)``, with its named outputs, and run the file on the same inputs.

    ``inputs`` are examples by name, batches (N, ...), whose N may be another one later. Weights that float16
    holds exactly take half the bytes. Needs the packages onnxscript and onnxruntime. Where the file differs
    from PyTorch by more than ``TOLERANCE``, an AssertionError says by how much, and nothing is written.
    """
    import onnxruntime

    graph, values = nn.Module().eval(), tuple(inputs.values())
    graph.net, vars(graph)["forward"] = net.eval().cpu(), partial(calculate, net)
    wanted, many = graph(*values), {0: torch.export.Dim("N")}
    with atomic_path(path) as part:
        torch.onnx.export(
            graph, values, part, input_names=list(inputs), output_names=list(wanted), optimize=False,
            dynamic_shapes=(many,) * len(values), opset_version=OPSET, external_data=False, verbose=False,
        )  # fmt: skip
        _shrink(part)
        session = onnxruntime.InferenceSession(part, providers=["CPUExecutionProvider"])
        found = session.run(list(wanted), {name: value.numpy() for name, value in inputs.items()})
        for ours, theirs in zip(found, wanted.values(), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE, err_msg=path.name)


def depth(folder: Path) -> None:
    """Chapter 1: the recorded runs, first a long one, then those of nets of all depths, with one recipe."""
    names = ("degradation-full-cpu", "degradation-live-cpu", "depths-full-cpu", "starts-full-cpu")
    runs = [load_run(name).model_dump(mode="json") for name in names]
    _write(folder, "depth", runs=runs, gradients=load_run("gradients-live-cpu").model_dump(mode="json"))


def heartbeat(folder: Path) -> None:
    """Chapter 10: the recorded net; of the beats only the mean of each class is passed on."""
    data, detector = load_ecg5000(), recorded_detector()
    some = torch.from_numpy(data.validation[:64, None]).float()
    export_onnx(detector.net_, folder / "heartbeat.onnx", lambda net, x: {"rebuilt": net(x)[0]}, windows=some)
    means = {name: data.validation[data.validation_classes == kind].mean(axis=0).round(4).tolist()
             for kind, name in enumerate(CLASS_NAMES[:4], 1)}  # fmt: skip
    _write(folder, "heartbeat", data, beats=means, threshold=detector.threshold_, fpr=detector.fpr_)


def desk(folder: Path) -> None:
    """Chapter 9: the recorded net, its scores of the test part, and images, as those may not be passed on.

    A dozen are drawn by the mean and 200 principal components of training images; half have a painted fault.
    """
    detector, data = FaultClassifier.load(weights_path(load_run("casting_controls-full-cpu"), "net")), load()
    examples = detector._objective().normalized(as_floats(data.test.color[:64]))
    export_onnx(detector.net_, folder / "desk.onnx", lambda n, x: {"maps": n.maps(x)[:, 0]}, images=examples)
    pca = PCA(200, svd_solver="randomized", random_state=0).fit(as_floats(data.train.color[:2500]).flatten(1))
    generator = torch.Generator().manual_seed(0)
    codes = torch.randn(12, 200, generator=generator).numpy() * pca.explained_variance_**0.5
    drawn = torch.from_numpy(pca.inverse_transform(codes)).float().clamp(0, 1).view(12, *examples.shape[1:])
    made = torch.cat([drawn[:6], spill(drawn[6:9], generator), empty_mould(drawn[9:], generator)])
    _write(folder, "desk", data.images, images=(255 * made).round().int().flatten(1).tolist(),
           scores=detector.decision_function(data.test.color).round(4).tolist(),
           labels=data.labels["test"].tolist(), threshold=detector.threshold_, mean=detector.mean_,
           std=detector.std_)  # fmt: skip


def switched(net: nn.Module, x: Tensor, on: Tensor) -> dict[str, Tensor]:
    """The logits of a net some of whose residual blocks are off.

    ``x`` are images (N, 3, H, W), ``on`` has 1 or 0 for each of them and each block, float32 (N, blocks). A
    block gives ``x + on * F(x)``: off, it passes on its input, as in chapter 2's lesions.
    """
    blocks = [each for each in net.modules() if isinstance(each, Residual)]
    switches = on.T[..., None, None, None]  # (blocks, N, 1, 1, 1)
    with ExitStack() as hooks:
        for block, s in zip(blocks, switches, strict=True):
            hooks.enter_context(block.branch.register_forward_hook(lambda m, x, y, s=s: s * y))
        return {"logits": net(x)}


def photograph(folder: Path) -> None:
    """Chapter 4: the recorded classifier, with the temperature that half of validation asks for."""
    data, compute = load_cifar10(), Compute(torch.device("cpu"), None)
    images, labels = data.validation.images, data.validation.labels
    net, objective, names = trained_classifier(compute)
    temperature = fit_temperature(predict(net, images[:2500], objective, compute), labels[:2500])
    examples = normalize(images[:64], objective.mean, objective.std).repeat(3, 1, 1, 1)
    switches = torch.tensor([[1.0, 1.0], [0.0, 1.0], [1.0, 0.0]]).repeat_interleave(64, dim=0)
    export_onnx(net, folder / "photograph.onnx", switched, images=examples, switches=switches)
    first = images[[int((labels == kind).nonzero()[0]) for kind in range(len(names))]]
    _write(folder, "photograph", data, names=names, samples=first.flatten(1).tolist(),
           temperature=temperature, mean=objective.mean.tolist(), std=objective.std.tolist())  # fmt: skip
