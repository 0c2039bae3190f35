"""The command line for images: ``companion fit images`` and ``companion score images``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from companion.cli_common import check_writable, errors_as_messages

if TYPE_CHECKING:
    from companion.data.images import FaultImages, ImageSet, Skipped
    from companion.estimators import ImageAE

SHOWN = 10
"""How many of a long list are printed."""
BATCH = 256
"""Files in memory at a time."""
DIVISOR = 8
"""Of height and width, as the net halves them three times."""

Device = Annotated[str | None, typer.Option(help="cpu, cuda, mps; chosen if not given.")]


class Sample(NamedTuple):
    """Images that were read from a folder.

    Attributes:
        images: distinct ones.
        skipped: what could not be read.
        copies: how many of the files that were read are copies of others.
        files: how many image files the folder holds.
    """

    images: ImageSet
    skipped: list[Skipped]
    copies: int
    files: int


def parse_size(text: str) -> tuple[int, int]:
    """Height and width, from ``HxW`` or one number for both.

    Raises:
        ValueError: if it is neither, or 8 does not divide both.

    Example:
        >>> parse_size("32x48"), parse_size("64")
        ((32, 48), (64, 64))
    """
    words = text.lower().split("x")
    if len(words) > 2 or not all(word.isascii() and word.isdigit() for word in words):
        raise ValueError(f"--size is height x width such as 64x64, not {text!r}")
    height, width = int(words[0]), int(words[-1])
    if min(height, width) < DIVISOR or height % DIVISOR or width % DIVISOR:
        raise ValueError(f"--size needs a height and a width that {DIVISOR} divides, not {text!r}")
    return height, width


def parse_scales(text: str, size: tuple[int, int]) -> tuple[int, ...]:
    """Sides of blocks in pixels, from numbers with commas between.

    Raises:
        ValueError: if they are no numbers from 1 to the shorter side.
    """
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() and 1 <= int(word) <= min(size) for word in words):
        raise ValueError(f"--scales are numbers from 1 to {min(size)} with commas between, not {text!r}")
    return tuple(int(word) for word in words)


def check_normal(folder: Path, known: Path | None = None) -> None:
    """Refuse a folder that seems to hold more than normal images.

    Raises:
        ValueError: if there is ``train/`` beside ``test/`` in it, or a folder that is called as anomalies are
            and is not ``known``.
    """
    from companion.data.image_folders import ANOMALOUS_FOLDERS

    inside = [name for name in ANOMALOUS_FOLDERS if (folder / name).is_dir()]
    if known is not None:
        inside = [name for name in inside if (folder / name).resolve() != known.resolve()]
    if (folder / "train").is_dir() and (folder / "test").is_dir():
        inside.append("test")
    if inside:
        better = f"{folder / 'train'}" if (folder / "train").is_dir() else "the folder of normal images alone"
        raise ValueError(
            f"{folder} holds a folder {inside[0]!r}, and all images below {folder} would be learned as "
            f"normal; name {better}, and known anomalies with --known"
        )


def with_bar(
    paths: Sequence[Path], label: str, size: tuple[int, int], color: bool, batch: int = BATCH
) -> Iterator[tuple[list[Path], ImageSet, tuple[Skipped, ...]]]:
    """Images batch by batch with their paths, and a progress bar on standard error if that is a terminal."""
    from tqdm.auto import tqdm

    from companion.data.images import image_batches

    done = 0
    with tqdm(total=len(paths), desc=label, unit="file", unit_scale=True, disable=None) as bar:
        for images, unread in image_batches(paths, size, color, batch):
            count = len(images) + len(unread)
            yield list(paths[done : done + count]), images, unread
            done += count
            bar.update(count)


def read_sample(folder: Path, size: tuple[int, int], color: bool, most: int, seed: int) -> Sample:
    """Distinct images of a folder: all, or if there are more than ``most``, so many.

    Which ones, their names and the seed decide, in an order of hashes; of copies one is taken.

    Raises:
        DataError: if there is no image that can be read.
    """
    import hashlib

    import torch

    from companion.data.images import ImageSet, Skipped, find_images
    from companion.data.sources import DataError
    from companion.image_report import shown_name

    def lot(path: Path) -> bytes:
        return hashlib.sha256(f"{seed} {shown_name(path, folder)}".encode()).digest()

    paths = find_images(folder)
    chosen = sorted(paths, key=lot) if len(paths) > most else paths
    parts: list[ImageSet] = []
    skipped: list[Skipped] = []
    seen: set[str] = set()
    copies = 0
    for _, images, unread in with_bar(chosen, "reading", size, color):
        skipped += [Skipped(shown_name(each.name, folder), each.reason) for each in unread]
        distinct = images.distinct()
        fresh = torch.tensor([value not in seen for value in distinct.hashes], dtype=torch.bool)
        copies += len(images) - int(fresh.sum())
        fresh &= fresh.cumsum(0) <= most - len(seen)
        parts.append(distinct.take(fresh.numpy()))
        seen.update(parts[-1].hashes)
        if len(seen) == most:
            break
    if not seen:
        raise DataError(f"none of the {len(paths):,} images in {folder} can be read: {skipped[0].reason}")
    found = ImageSet(
        torch.cat([part.images for part in parts]),
        torch.cat([part.labels for part in parts]),
        tuple(name for part in parts for name in part.names),
        tuple(value for part in parts for value in part.hashes),
    )
    return Sample(found, skipped, copies, len(paths))


def tell_skipped(skipped: Sequence[Skipped], folder: Path, count: int | None = None) -> None:
    """Print how many files could not be read, and the first of them.

    Args:
        skipped: at least the first of them.
        folder: where they are.
        count: how many they are, if not all are given.
    """
    count = len(skipped) if count is None else count
    if count:
        print(f"{count:,} of the image files in {folder} cannot be read and are left out")
    for each in skipped[:SHOWN]:
        print(f"  {each.name}: {each.reason}")
    if count > SHOWN:
        print(f"  and {count - SHOWN:,} more")


def calibrated(model: ImageAE, parts: FaultImages, fpr: float) -> str:
    """Set the threshold, and say in a line what it is or why there is none."""
    from companion.detection.thresholds import ThresholdError

    known = parts.tuning.images
    try:
        model.calibrate(parts.validation.images, fpr)
    except ThresholdError as error:
        return f"no threshold: {error}"
    caught, alarms = (int(model.predict(each).sum()) for each in (known, parts.validation.images))
    return (
        f"threshold {model.threshold_:.4g}: of the images it was chosen on, it flags {caught:,} of "
        f"{len(known):,} known anomalies and {alarms:,} of {len(parts.validation):,} held-out normal images"
    )


# ---------------------------------------------------------------- fit


def fit_images(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Normal images, at any depth, of any size and format.")
    ],
    out: Annotated[Path, typer.Option(help="Where to write the model.")],
    size: Annotated[
        str, typer.Option(help=f"Height x width that images are brought to; {DIVISOR} divides both.")
    ] = "64x64",
    gray: Annotated[bool, typer.Option("--gray/--color", help="Learn grey values or colours.")] = False,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the images, at most.")] = 30,
    latent: Annotated[int, typer.Option(min=1, help="Numbers in the latent vector.")] = 64,
    known: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Known anomalies, which help to choose the threshold.")
    ] = None,
    fpr: Annotated[
        float, typer.Option(help="The false-positive rate that the threshold should keep.")
    ] = 0.01,
    validation: Annotated[float, typer.Option(help="The share that is held out.")] = 0.2,
    camera: Annotated[
        bool,
        typer.Option(
            "--camera/--still",
            help="Whether training moves, zooms, mirrors and lights the images, as a camera may that is not "
            "fixed. Say --still if already a moved or mirrored image is unusual.",
        ),
    ] = True,
    scales: Annotated[
        str, typer.Option(help="Sides of the blocks over which errors are averaged, in pixels.")
    ] = "4,8",
    most: Annotated[
        int, typer.Option(min=2, help="Learn from so many images at most, a sample if there are more.")
    ] = 20_000,
    seed: Annotated[int, typer.Option(help="Decides everything random.")] = 0,
    device: Device = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a training that was stopped.")] = False,
) -> None:
    """Learn what normal images look like: an autoencoder and a threshold.

    DIR holds normal images and nothing else: of a data set with train/ and test/, name the folder train.
    Some of the images are held out for the threshold. Of new images like these it flags at most the share
    --fpr, on average; of images from another camera or light perhaps many more. With --known it is, among
    the thresholds that flag at most this share of the images held out, the one that finds most of the
    known anomalies. Copies of an image count once, and files that cannot be read are listed.
    """
    with errors_as_messages():
        from companion.compute import pick_compute
        from companion.data.images import read_images, split_images
        from companion.estimators import ImageAE
        from companion.objectives.reconstruction import STILL, Camera

        sides = parse_size(size)
        blocks = parse_scales(scales, sides)
        for name, share in (("validation", validation), ("fpr", fpr)):
            if not 0 < share < 1:
                raise ValueError(f"--{name} is a share between 0 and 1, not {share}")
        check_normal(folder, known)
        check_writable(out)
        compute = pick_compute(device, "float32")
        normal = read_sample(folder, sides, not gray, most, seed)
        tell_skipped(normal.skipped, folder)
        none = read_images([], sides, not gray)[0]
        anomalies = none
        if known is not None:
            anomalies, unread, *_ = read_sample(known, sides, not gray, most, seed)
            tell_skipped(unread, known)
        parts = split_images(
            normal.images, anomalies, none, name=folder.name, source=str(folder), digest="",
            validation_share=validation,
        )  # fmt: skip
        learn, held = parts.train, parts.validation
        if len(learn) < 2 or len(held) == 0:
            raise ValueError(
                f"too few images: {len(learn)} distinct ones to learn from and {len(held)} held out; "
                "give more images or another --validation"
            )
        model = ImageAE(
            latent=latent, scales=blocks, camera=Camera() if camera else STILL, seed=seed,
            batch_size=max(8, min(128, len(learn) // 16)),  # some steps an epoch, however few the images
        )  # fmt: skip
        checkpoint = out.with_name(f".{out.name}.checkpoint")
        if not resume:
            checkpoint.unlink(missing_ok=True)
        model.fit(
            learn.images, epochs=epochs, compute=compute, checkpoint=checkpoint,
            progress="training",
        )  # fmt: skip
        verdict = calibrated(model, parts, fpr)
        model.save(out)
        checkpoint.unlink(missing_ok=True)
        if normal.files > most:
            print(
                f"a sample of {len(normal.images):,} distinct images was drawn from {normal.files:,} files, "
                "see --most"
            )
        if normal.copies:
            print(f"copies of other images, left out: {normal.copies:,}")
        if parts.skipped:
            print(f"copies of known anomalies, left out: {len(parts.skipped):,}")
        learned = len(model.history_.train["loss"]) * min(model.batch_size, len(learn))
        print(
            f"learned from {len(learn):,} images of {size} {'grey' if gray else 'colour'} pixels, "
            f"held out {len(held):,}; {learned / model.history_.seconds:,.0f} images/s in training"
        )
        print(f"{verdict}\nwritten to {out}")


# ---------------------------------------------------------------- score


def score_images(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Images, at any depth, of any size.")],
    model: Annotated[Path, typer.Option(help="What `companion fit images` wrote.")],
    out: Annotated[Path, typer.Option(help="A folder for the report, new or with an older report.")],
    worst: Annotated[int, typer.Option(min=0, max=500, help="Show so many images in the report.")] = 50,
    batch: Annotated[int, typer.Option(min=1, help="Files in memory at a time.")] = BATCH,
    device: Device = None,
) -> None:
    """Score images and write a report: scores.csv, and index.html with the most unusual images.

    The columns of scores.csv are file, score, flagged (1 or 0, if the model has a threshold) and error: why a
    file could not be read. Nothing of the folder's size but names and scores is kept in memory.
    """
    with errors_as_messages():
        import csv
        import time

        from companion.compute import pick_compute
        from companion.data.images import find_images
        from companion.detection.anomaly_maps import image_scores
        from companion.estimators import ImageAE
        from companion.files import atomic_folder
        from companion.image_report import (
            COLUMNS,
            PAGE,
            TABLE,
            Findings,
            check_report_folder,
            shown_name,
            write_page,
        )

        detector = ImageAE.load(model, pick_compute(device, "float32"))
        check_report_folder(out)
        paths = find_images(folder)
        channels, height, width = detector.shape_
        found = Findings(folder, detector.threshold_, worst, detector.fpr_)
        with atomic_folder(out) as part:
            clock = time.perf_counter()
            with (part / TABLE).open("w", encoding="utf8", newline="") as file:
                table = csv.writer(file, lineterminator="\n")
                table.writerow(COLUMNS)
                for own, images, unread in with_bar(paths, "scoring", (height, width), channels == 3, batch):
                    maps = detector.maps(images.images)
                    scores = image_scores(maps)
                    table.writerows(found.add(own, images, scores, maps.numpy(), unread))
            seconds = time.perf_counter() - clock
            write_page(part / PAGE, found, shown_name(model.name))
            check_report_folder(out)  # once more: it may have changed
        tell_skipped(found.listed, folder, found.unread)
        line = f"{len(found.scores):,} images scored at {len(paths) / seconds:,.0f} files/s"
        if detector.threshold_ is not None:
            line += f", {found.flagged:,} flagged"
        if not found.scores:
            line = "warning: no image could be read"
        print(f"{line}; written to {out}")
        if found.warning:
            print(f"warning: {found.warning}")


def register(fit_app: typer.Typer, score_app: typer.Typer) -> None:
    """Add ``images`` to ``companion fit`` and ``companion score``."""
    fit_app.command("images")(fit_images)
    score_app.command("images")(score_images)
