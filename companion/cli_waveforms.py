"""The command line for waveforms: ``companion fit waveforms`` and ``companion score waveforms``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from companion import cli_common as common
from companion.cli_common import SHARE, Epochs, Fpr, Model, Out, errors_as_messages
from companion.files import atomic_path

if TYPE_CHECKING:
    import numpy as np

    from companion.data.csv_numbers import Numbers
    from companion.data.series import Windows

File = Annotated[Path, typer.Argument(help="CSV, Parquet or NPY; rows are windows, or see --length.")]

Length = Annotated[
    int | None,
    typer.Option(min=2, help="Rows are samples of a series, columns its channels: cut windows so long."),
]
Columns = Annotated[str | None, typer.Option(help="Those to read, with commas between; or all.")]
Method = Annotated[str, typer.Option(help="auto: the best of net, pca (8 components) and neighbours (1).")]
Standardize = Annotated[
    str, typer.Option(help="window: offset and height of each do not matter; channel: they do; or auto.")
]
Stride = Annotated[int | None, typer.Option(min=1, help="Samples from window to window; half the length.")]


def cut(numbers: Numbers, length: int | None, stride: int | None) -> np.ndarray | Windows:
    """Windows (N, C, L) as the rows are, or with ``length`` those of a series, whose rows are samples."""
    from companion.data.series import cut_windows

    values, shape = numbers.values, numbers.values.shape
    if length is not None:
        return cut_windows(values.T, length, stride)
    if values.ndim not in (2, 3):
        raise ValueError(f"an array {shape}; windows are (N, L) or (N, channels, L), a series has --length")
    return values[:, None] if values.ndim == 2 else values


def hold_out(found: np.ndarray | Windows) -> tuple[np.ndarray, np.ndarray]:
    """Windows to learn from, and windows for the threshold; those without any number are left out.

    Single windows are drawn at random. Of a series the end is held out, without windows over the border.
    """
    import numpy as np

    from companion.data.series import Windows

    if isinstance(found, Windows):
        border = round((1 - SHARE) * found.series_length)
        learn, held = found.values[found.ends <= border], found.values[found.starts >= border]
    else:
        order = np.random.default_rng(0).permutation(len(found))
        count = round(SHARE * len(found))
        learn, held = found[np.sort(order[count:])], found[np.sort(order[:count])]
    learn, held = (part[~np.isnan(part).all(axis=(1, 2))] for part in (learn, held))
    common.check_enough("windows", learn, held)
    return learn, held


def fit_waveforms(
    file: File, out: Out, length: Length = None, stride: Stride = None, columns: Columns = None,
    method: Method = "auto", standardize: Standardize = "auto", epochs: Epochs = 30, fpr: Fpr = 0.01,
) -> None:  # fmt: skip
    """Learn what normal windows look like, by a residual autoencoder or simpler, and set a threshold.

    By default all methods are fitted, with each standardisation, and the best is kept, by PR-AUC on held-out
    windows and the same with faults put in.
    """
    with errors_as_messages():
        from companion.data.csv_numbers import read_numbers
        from companion.estimators.baselines import WINDOW_METHODS, choose_window_detector

        names = WINDOW_METHODS if method == "auto" else (method,)
        scales: Any = ("window", "channel") if standardize == "auto" else (standardize,)
        if not {*names} <= {*WINDOW_METHODS}:
            raise ValueError(f"the method is auto, {', '.join(WINDOW_METHODS)}, not {method}")
        common.check_writable(out)
        numbers = read_numbers(file, None if columns is None else [n.strip() for n in columns.split(",")])
        print(numbers.told)
        stride = None if length is None else stride or max(1, length // 2)
        learn, held = hold_out(cut(numbers, length, stride))
        common.tell_promise(len(held), fpr, f"a --stride below {stride}, " if stride else "")
        model = choose_window_detector(learn, held, epochs=epochs, names=names, scales=scales)
        common.tell_choice(model, "put-in")
        model.columns_, model.stride_ = numbers.names, stride
        common.finish(model, held, fpr, out, f"{len(learn):,} windows of {learn.shape[1]} x {learn.shape[2]}")


def score_waveforms(
    file: File, model: Model, out: Annotated[Path, typer.Option(help="A CSV file for the scores.")]
) -> None:
    """Score windows: one line each, with a verdict.

    The columns are window, of a series start and end (first sample, and the one behind the last), score, and
    flagged (1 or 0). Where a window holds no number at all, score and flagged are empty. A series is cut, and
    columns are chosen, as when the model was fitted.
    """
    with errors_as_messages():
        import pandas as pd

        from companion.data.csv_numbers import read_numbers
        from companion.data.series import Windows, is_constant
        from companion.estimators import ResNetAE, WindowBaseline

        detector: ResNetAE = common.load_first(model, WindowBaseline, ResNetAE)
        common.check_writable(out)
        numbers = read_numbers(file, detector.columns_)
        print(numbers.told)
        series = None if detector.stride_ is None else detector.length_
        found = cut(numbers, series, detector.stride_)
        windows = found.values if isinstance(found, Windows) else found
        scores, flagged = detector.decision_function(windows), detector.predict(windows)
        table = pd.DataFrame({"window": range(len(scores))})
        if isinstance(found, Windows):
            table = table.assign(start=found.starts, end=found.ends)
        table = table.assign(score=scores, flagged=pd.array(flagged.astype(int).tolist(), dtype="Int64"))
        with atomic_path(out) as part:
            table.to_csv(part, index=False)
        print(f"{len(scores):,} windows scored, {int(flagged.sum()):,} flagged")
        common.warn_of_many(int(flagged.sum()), int(flagged.count()), detector.limit()[1], "windows")
        if flagged.mask.any():
            print(f"{int(flagged.mask.sum()):,} windows hold no number and have neither score nor verdict")
        if count := int(is_constant(windows).sum()):
            print(f"warning: {count:,} windows are flat lines, as of a stuck sensor; the score may miss that")
        print(f"written to {out}")
