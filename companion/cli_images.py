"""The command line for images: ``companion fit images`` and ``companion score images``."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import pandas as pd
import typer
from tqdm import tqdm

from companion import cli_common as common
from companion.cli_common import SHARE, Engine, Epochs, Fpr, Model, Out, Report, Workers
from companion.data.download import DataError
from companion.files import atomic_path
from companion.workers import over_parts

if TYPE_CHECKING:
    from torch import Tensor

    from companion.data.images import ImageSet, Range, Skipped
    from companion.estimators.autoencoders import ImageDetector

Size = Annotated[tuple[int, int], typer.Option(min=8, metavar="H W", help="The size to scale images to.")]
Gray = Annotated[bool, typer.Option("--gray", help="Learn grey values, not colours.")]
Methods = Literal["auto", "neighbours", "pca", "patches", "still", "net", "classifier"]
Method = Annotated[Methods, typer.Option(help="auto keeps the best of all.")]
Known = Annotated[Path | None, typer.Option(help="Known faults to choose by; else pasted rectangles.")]
Faults = Annotated[Path | None, typer.Option(help="A folder of faults; then all images of DIR are normal.")]
Normal = Annotated[Path | None, typer.Option(help="A folder of normal images; else those used last.")]
Sorted = Annotated[Path, typer.Argument(metavar="DIR", help="Holds folders such as normal and fault.")]
KINDS = ("ImageBaseline", "ImageAE", "PatchMemory", "FaultClassifier")  # that `fit` writes
BATCH = 256  # image files in memory at a time


def tell_skipped(skipped: Sequence[Skipped], folder: Path | None) -> None:
    """Print how many files were left out, and the first of them with the reason."""
    if skipped:
        print(f"left out{f' in {folder}' if folder else ''}: {len(skipped):,}")
    for each in skipped[:10]:
        print(f"  {common.shown_name(each.name, folder)}: {each.reason}")


def read_sample(
    folder: Path, size: tuple[int, int], color: bool, limits: Range | None = None
) -> tuple[ImageSet, Range | None]:
    """Distinct images of a folder, or of very many a sample, and the range of those deeper than 8 bits."""
    from companion.data.images import deep_range, find_images, read_paths

    paths, left_out = find_images(folder)
    most = max(2, min(20_000, 2**30 // (3 * size[0] * size[1])))
    digests = {path: hashlib.sha256(common.shown_name(path, folder).encode()).digest() for path in paths}
    chosen = sorted(paths, key=lambda path: digests[path])[:most]
    limits = limits or deep_range(chosen)
    bar = tqdm(sorted(chosen), desc="reading", unit="file", disable=None)
    images, skipped = read_paths(bar, size, color, limits)
    tell_skipped([*left_out, *skipped], folder)
    if len(images) == 0:
        raise DataError(f"none of the {len(paths):,} images in {folder} can be read: {skipped[0].reason}")
    found = images.distinct()
    sample = f", a sample of {len(chosen):,}" if len(chosen) < len(paths) else ""
    copies = f"; copies left out: {len(images) - len(found):,}" if len(images) > len(found) else ""
    print(f"{folder}: {len(paths):,} image files{sample}, {len(found):,} different images{copies}")
    if limits is not None:
        print(f"in images deeper than 8 bits, {limits[0]:g} is taken for black and {limits[1]:g} for white")
    return found, limits


def fit_images(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Normal images, at any depth, of any size.")],
    out: Out, size: Size = (64, 64), gray: Gray = False, method: Method = "auto", known: Known = None,
    epochs: Epochs = 30, fpr: Fpr = 0.01,
) -> None:  # fmt: skip
    """Learn what normal images look like: a detector and a threshold.

    DIR holds normal images and nothing else: of a data set with train/ and test/, name the folder train.

    The methods are neighbours and pca on pixels; a memory of patches in inner layers of a net; an
    autoencoder, under a camera that moves, zooms, mirrors and lights the images (net) or not (still); and a
    classifier, which learns from half of the known faults. By default all are fitted, and the best is kept,
    by PR-AUC on held-out normals and faults. The score of an image is the mean over its places, or the most
    unusual place, which finds small faults.
    """
    from companion.data.images import check_not_sorted, share_by_hash
    from companion.estimators.baselines import METHODS, choose_image_detector
    from companion.models.autoencoders import halved

    halved(size, 3)
    check_not_sorted(folder)
    common.check_writable(out)
    normal, limits = read_sample(folder, size, not gray)
    held_out = share_by_hash(normal.hashes, SHARE, salt="validation")
    learn, held = normal.take(~held_out), normal.take(held_out)
    common.check_enough("images", learn, held)
    common.tell_promise(len(held), fpr)
    faults = halves(read_sample(known, size, not gray, limits)[0]) if known else ()
    names = METHODS if method == "auto" else (method,)
    model = choose_image_detector(learn.images, held.images, *faults, epochs=epochs, names=names)
    model.value_range_ = limits
    common.tell_choice(model, "known" if known else "pasted")
    kind = "grey" if gray else "colour"
    print(f"learned from {len(learn):,} images of {size[0]}x{size[1]} {kind} pixels")
    common.calibrate(model, held.images, max(fpr, 1 / (len(held) + 1)), out)


def halves(faults: ImageSet) -> tuple[Tensor, Tensor]:
    """Known faults to learn from, and others to choose by: of each folder the first half, and the rest."""
    places = pd.Series(range(len(faults))).groupby([str(Path(name).parent) for name in faults.names])
    first = (places.cumcount() < places.transform("size") // 2).to_numpy()
    return faults.take(first).images, faults.take(~first).images


def read_as(detector: ImageDetector, paths: Sequence[Path]) -> tuple[ImageSet, tuple[Skipped, ...]]:
    """Images as those that the detector learned from, and what could not be read."""
    from companion.data.images import read_paths

    channels, height, width = detector.shape_
    return read_paths(paths, (height, width), channels == 3, detector.value_range_)


def score_all(
    detector: ImageDetector, paths: Sequence[Path], model: Path, kept: Path, engine: str = "local",
    workers: int = 1,
) -> tuple[dict[str, float], list[Skipped]]:  # fmt: skip
    """Scores by file, and what could not be read; few images are in memory at a time."""
    from companion.data.images import Skipped

    def scored(batch: Sequence[Path]) -> pd.DataFrame:
        images, unread = read_as(detector, batch)
        found = dict(zip(images.names, detector.decision_function(images.images), strict=True))
        table = pd.DataFrame({"score": [found.get(str(path)) for path in batch]}, dtype=float)
        table.attrs["skipped"] = unread
        return table

    batches = [paths[start : start + BATCH] for start in range(0, len(paths), BATCH)]
    tables = over_parts(batches, scored, kept, [model, *paths], engine, workers, "batch")
    scores = zip(map(str, paths), pd.concat(tables)["score"], strict=True)
    skipped = [Skipped(*each) for table in tables for each in table.attrs["skipped"]]
    return {name: score for name, score in scores if pd.notna(score)}, skipped


def score_images(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Images, at any depth, of any size.")],
    model: Model, out: Annotated[Path, typer.Option(help="A folder for scores.csv and unusual.png.")],
    engine: Engine = "local", workers: Workers = 1,
) -> None:  # fmt: skip
    """Score images: a table of all, scores.csv, and a picture of the most unusual with their error maps.

    The columns are file, score, flagged (1 or 0), and error, why a file could not be read; then score and
    flagged are empty. An apostrophe stands before a name that a spreadsheet would take for a formula. A run
    that was stopped goes on where it was: what is finished waits in the folder scores.csv.parts.
    """
    from companion.data.images import find_images

    detector = common.load(model, KINDS)
    limit, fpr = detector.limit()
    out.mkdir(parents=True, exist_ok=True)
    paths, left_out = find_images(folder)
    found, skipped = score_all(detector, paths, model, kept := out / "scores.csv.parts", engine, workers)
    reasons = {each.name: each.reason for each in skipped}
    table = pd.DataFrame({"file": [common.safe_cell(common.shown_name(path, folder)) for path in paths]})
    table["score"] = [found.get(str(path)) for path in paths]
    table["flagged"] = (table["score"] > limit).astype("Int64").where(table["score"].notna())
    table["error"] = [reasons.get(str(path), "") for path in paths]
    with atomic_path(out / "scores.csv") as part:
        table.to_csv(part, index=False)
    draw_unusual(out / "unusual.png", detector, found, folder)
    rmtree(kept)
    tell_skipped([*left_out, *skipped], folder)
    count = int(table["flagged"].sum())
    print(f"{len(found):,} images scored, {count:,} flagged; written to {out}")
    common.warn_of_rate(count, len(found), fpr, "images")


def draw_unusual(path: Path, detector: ImageDetector, found: dict[str, float], folder: Path) -> None:
    """One picture of the twelve most unusual images, each beside its map, all maps on one scale."""
    from matplotlib.figure import Figure

    limit = detector.limit()[0]
    worst = read_as(detector, [Path(name) for name in sorted(found, key=lambda name: -found[name])[:12]])[0]
    maps, rows = detector.maps(worst.images).numpy(), max(1, -(-len(worst) // 3))
    figure = Figure(figsize=(11, 0.5 + 2.1 * rows), layout="constrained")
    figure.suptitle(f"The {len(worst)} most unusual images; * flagged, above {limit:.3g}")
    axes = figure.subplots(rows, 6, squeeze=False).flatten()
    for ax in axes:
        ax.axis("off")
    for place, name in enumerate(worst.names):
        left, right = axes[2 * place : 2 * place + 2]
        left.imshow(worst.images[place].permute(1, 2, 0).numpy(), cmap="gray", vmin=0, vmax=255)
        right.imshow(maps[place], cmap="magma", vmin=0, vmax=max(1e-9, maps.max()))
        text = f"{common.shown_name(name, folder)[-28:]}\n{found[name]:.3g}{' *' * (found[name] > limit)}"
        left.set_title(text, fontsize=8, parse_math=False)
    with atomic_path(path) as part:
        figure.savefig(part, format="png", dpi=100)


def evaluate_images(folder: Sorted, model: Model, faults: Faults = None, out: Report = None) -> None:
    """Measure how well a model tells normal images from faults: areas, and rates at its threshold."""
    from companion.data.images import find_images, sorted_images

    detector = common.load(model, KINDS)
    labels = sorted_images(folder) if faults is None else dict.fromkeys(find_images(folder)[0], 0)
    labels |= {} if faults is None else dict.fromkeys(find_images(faults)[0], 1)
    with TemporaryDirectory() as kept:
        found, skipped = score_all(detector, list(labels), model, Path(kept))
    tell_skipped(skipped, None)
    known = np.array([labels[Path(name)] for name in found])
    common.report(known, np.array(list(found.values())), detector.limit(), out)


def calibrate_images(model: Model, normal: Normal = None, fpr: Fpr = 0.01) -> None:
    """Set another threshold of a model, without fitting it again."""
    from companion.data.images import find_images

    detector = common.load(model, KINDS)
    images = normal and read_as(detector, find_images(normal)[0])[0].distinct().images
    common.calibrate(detector, images, fpr, model)
