"""The command line for waveforms: ``companion fit waveforms``, ``score waveforms`` and so on."""

from __future__ import annotations

from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import pandas as pd
import typer

from companion import cli_common as common
from companion.cli_common import SHARE, Engine, Epochs, Fpr, Model, Out, Report, Workers
from companion.data.csv_numbers import Numbers, read_numbers
from companion.data.series import Windows, cut_windows, is_constant
from companion.files import atomic_path
from companion.workers import over_parts

if TYPE_CHECKING:
    from companion.estimators import ResNetAE

KINDS = ("WindowBaseline", "ResNetAE")  # that `fit` writes
Files = Annotated[list[Path], typer.Argument(help="CSV, Parquet, NPY, NPZ or WAV; a row is a window.")]
Length = Annotated[int | None, typer.Option(min=2, help="Rows are samples; windows have so many.")]
Columns = Annotated[str | None, typer.Option(help="Columns to read, as a,b,c; by default all.")]
Known = Annotated[list[Path] | None, typer.Option(help="Faulty windows to choose by; else made up.")]
Faults = Annotated[list[Path], typer.Option(help="A file of faulty windows only; may be given again.")]
Normal = Annotated[list[Path] | None, typer.Option(help="Normal windows; else those used last.")]
Methods = Literal["auto", "pca", "neighbours", "net"]
Method = Annotated[Methods, typer.Option(help="auto: the best of pca (8 components), neighbours (1), net.")]
Scales = Literal["auto", "window", "channel"]
Standardize = Annotated[Scales, typer.Option(help="window: ignore each one's level and height.")]
Stride = Annotated[int | None, typer.Option(min=1, help="Samples between starts; else half a window.")]


def read_all(files: list[Path], columns: list[str] | None) -> list[Numbers]:
    """The numbers of files, and a line on each; without ``columns`` all have those of the first."""
    found: list[Numbers] = []
    for file in files:
        found.append(read_numbers(file, columns or (found[0].names if found else None)))
        print(found[-1].told)
    return found


def cut(numbers: Numbers, length: int | None, stride: int | None) -> Windows:
    """The rows as windows (N, C, L), or with ``length`` windows of a series, whose rows are samples."""
    values, shape = numbers.values, numbers.values.shape
    if length is not None:
        return cut_windows(values.T, length, stride)
    if values.ndim not in (2, 3) or shape[-1] < 3:
        raise ValueError(f"an array {shape}; windows are (N, L) or (N, channels, L), a series has --length")
    return Windows(values[:, None] if values.ndim == 2 else values, np.arange(len(values)))


def together(parts: list[np.ndarray]) -> np.ndarray:
    """Windows (N, C, L) of several files as one array, without those that hold no number at all."""
    if len({part.shape[1:] for part in parts}) > 1:
        raise ValueError(f"files differ in channels or samples: {sorted({part.shape[1:] for part in parts})}")
    windows = np.concatenate(parts)
    return np.asarray(windows[~np.isnan(windows).all(axis=(1, 2))])


def hold_out(parts: list[Windows], series: bool) -> tuple[np.ndarray, np.ndarray]:
    """Windows to learn from, and held-out ones: drawn at random, or the end of each series, apart."""
    if series:
        learn = together([part.values[part.ends <= (1 - SHARE) * part.ends[-1]] for part in parts])
        held = together([part.values[part.starts >= (1 - SHARE) * part.ends[-1]] for part in parts])
    else:
        windows = together([part.values for part in parts])
        held_out = np.random.default_rng(0).permutation(len(windows)) < round(SHARE * len(windows))
        learn, held = windows[~held_out], windows[held_out]
    common.check_enough("windows", learn, held)
    return learn, held


def fit_waveforms(
    files: Files, out: Out, length: Length = None, stride: Stride = None, columns: Columns = None,
    known: Known = None, method: Method = "auto", standardize: Standardize = "auto", epochs: Epochs = 30,
    fpr: Fpr = 0.01,
) -> None:  # fmt: skip
    """Learn what normal windows look like, by a residual autoencoder or simpler, and set a threshold.

    By default all methods are fitted, with each standardisation, and the best is kept, by PR-AUC on held-out
    windows and faults: those that are known, or else the same windows with faults put in.
    """
    from companion.estimators.baselines import WINDOW_METHODS, choose_window_detector

    names = WINDOW_METHODS if method == "auto" else (method,)
    scales: Any = ("window", "channel") if standardize == "auto" else (standardize,)
    common.check_writable(out)
    read = read_all(files, None if columns is None else [name.strip() for name in columns.split(",")])
    stride = None if length is None else stride or max(1, length // 2)
    learn, held = hold_out([cut(numbers, length, stride) for numbers in read], length is not None)
    faulty = [cut(numbers, length, stride).values for numbers in read_all(known or [], read[0].names)]
    room = sum(round(SHARE * len(numbers.values)) - (length or 0) for numbers in read)
    finer = min(round(fpr * room), (stride or 1) - 1)  # as many windows as the promise needs
    common.tell_promise(len(held), fpr, f"--stride {finer}, " if stride and finer >= 1 else "")
    model = choose_window_detector(
        learn, held, together(faulty) if faulty else None, epochs=epochs, names=names, scales=scales
    )
    common.tell_choice(model, "known" if known else "injected")
    model.columns_, model.stride_ = read[0].names, stride
    print(f"learned from {len(learn):,} windows of {learn.shape[1]} x {learn.shape[2]}")
    common.calibrate(model, held, max(fpr, 1 / (len(held) + 1)), out)


def read_as(detector: ResNetAE, files: list[Path]) -> list[tuple[Numbers, Windows]]:
    """What files hold, with the columns and cut as when the model was fitted."""
    length = detector.stride_ and detector.length_
    return [(n, cut(n, length, detector.stride_)) for n in read_all(files, detector.columns_)]


def windows_of(detector: ResNetAE, files: list[Path]) -> np.ndarray:
    """All windows of files, as one array."""
    return together([found.values for _, found in read_as(detector, files)])


def score_waveforms(
    files: Files, model: Model, out: Annotated[Path, typer.Option(help="A CSV file for the scores.")],
    engine: Engine = "local", workers: Workers = 1,
) -> None:  # fmt: skip
    """Score windows: one line each, with a verdict.

    The columns are window, of a series start and end (first sample, and the one behind the last), score, and
    flagged (1 or 0). Of several files the first column is file. Where a file has times there is time, of a
    series the start_time of the first sample and the end_time of the last. Where a window holds no number at
    all, score and flagged are empty. A series is cut, and columns are chosen, as when the model was fitted.
    A run that was stopped goes on with the files that are left: the others wait beside the CSV file.
    """
    detector = common.load(model, KINDS)
    limit, fpr = detector.limit()
    common.check_writable(out)

    def scored(file: Path) -> pd.DataFrame:
        ((numbers, found),) = read_as(detector, [file])
        times = None if numbers.times is None else numbers.times.to_numpy()
        scores = pd.Series(detector.decision_function(found.values))
        name = common.safe_cell(common.shown_name(file))
        table: dict[str, Any] = {"file": name, "window": range(len(scores))}
        if detector.stride_ is not None:
            table |= {"start": found.starts, "end": found.ends}
            if times is not None:
                table |= {"start_time": times[found.starts], "end_time": times[found.ends - 1]}
        elif times is not None:
            table["time"] = times
        table |= {"score": scores, "flagged": (scores > limit).astype("Int64").mask(scores.isna())}
        frame = pd.DataFrame(table)
        frame.attrs["flat"] = int(is_constant(found.values).sum())
        return frame

    kept = out.with_name(f"{out.name}.parts")
    tables = over_parts(files, scored, kept, [model, *files], engine, workers, "file")
    every, flat = pd.concat(tables), sum(table.attrs["flat"] for table in tables)
    with atomic_path(out) as part:
        every.drop(columns=[] if len(files) > 1 else "file").to_csv(part, index=False)
    rmtree(kept)
    many, unknown = int(every["flagged"].sum()), int(every["flagged"].isna().sum())
    print(f"{len(every):,} windows scored, {many:,} flagged")
    common.warn_of_rate(many, len(every) - unknown, fpr, "windows")
    if unknown:
        print(f"{unknown:,} windows hold no number and have neither score nor verdict")
    if flat:
        print(f"warning: {flat:,} windows are flat lines, as of a stuck sensor; the score may miss that")
    print(f"written to {out}")


def evaluate_waveforms(files: Files, model: Model, faults: Faults, out: Report = None) -> None:
    """Measure how well a model tells the normal windows of files from faulty ones: areas and rates."""
    detector = common.load(model, KINDS)
    scores = [detector.decision_function(windows_of(detector, part)) for part in (files, faults)]
    labels = np.repeat((0, 1), list(map(len, scores)))
    common.report(labels, np.concatenate(scores), detector.limit(), out)


def calibrate_waveforms(model: Model, normal: Normal = None, fpr: Fpr = 0.01) -> None:
    """Set another threshold of a model, without fitting it again."""
    detector = common.load(model, KINDS)
    common.calibrate(detector, windows_of(detector, normal) if normal else None, fpr, model)
