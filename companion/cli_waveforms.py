"""The command line for waveforms: ``companion fit waveforms`` and ``companion score waveforms``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from companion.cli_common import errors_as_messages
from companion.files import atomic_path

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from companion.data.windows import Windows

SUFFIXES = (".csv", ".npy", ".parquet")

File = Annotated[Path, typer.Argument(help="CSV, NPY or Parquet, see --length.")]
Length = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="The file is a long series (rows are samples, columns are channels), to be cut into windows of "
        "so many samples. Without it, each row is a window.",
    ),
]
Stride = Annotated[
    int | None, typer.Option(min=1, help="Samples between windows; half of --length if not given.")
]
Columns = Annotated[
    str | None, typer.Option(help="Names of the columns to read, with commas between; all if not given.")
]

Header = Annotated[
    bool | None,
    typer.Option("--header/--no-header", help="Whether the first line of a CSV file names columns; guessed."),
]


def read_numbers(path: Path, columns: str | None = None, header: bool | None = None) -> np.ndarray:
    """The numbers of a file as float64: (rows, columns), or any shape from NPY.

    Args:
        path: of a CSV, NPY or Parquet file. In CSV, empty fields and "nan" are NaN.
        columns: names with commas between, of the columns to read.
        header: whether the first line of a CSV file names the columns; guessed if ``None``. If the first
            name is empty, that column is the index and is left out.

    Raises:
        ValueError: if the file is of another kind or damaged, or holds something that is no number.
        OSError: if it cannot be read.
    """
    import numpy as np
    import pandas as pd

    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{path} is none of {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    if suffix == ".npy":
        if columns is not None:
            raise ValueError("an NPY file has no names of columns; leave --columns out")
        try:
            array = np.load(path, allow_pickle=False)
            return np.asarray(array, dtype=np.float64)
        except (ValueError, TypeError, EOFError) as error:
            raise ValueError(f"{path} is no array of numbers: {error}") from error
    if suffix == ".parquet":
        try:
            frame = pd.read_parquet(path)
        except ImportError as error:
            raise ValueError("reading Parquet needs pyarrow: `pip install pyarrow`, or use CSV") from error
        except ValueError as error:  # pyarrow's word for a damaged file
            raise ValueError(f"{path} is no Parquet file that can be read: {error}") from error
    else:
        frame = _read_csv(path, header)
    if columns is not None:
        names = [name.strip() for name in columns.split(",")]
        frame.columns = frame.columns.astype(str)
        missing = [name for name in names if name not in frame.columns]
        if missing:
            raise ValueError(
                f"{path} has no column {missing[0]!r}; it has: {', '.join(map(str, frame.columns))}"
            )
        frame = frame[names]
    bad = [str(name) for name in frame.columns if not pd.api.types.is_numeric_dtype(frame[name])]
    if bad:
        raise ValueError(f"not only numbers in column {', '.join(bad[:5])} of {path}; choose with --columns")
    return frame.to_numpy(dtype=np.float64, na_value=np.nan)


def _read_csv(path: Path, header: bool | None) -> pd.DataFrame:
    """A CSV file; where ``header`` is ``None``, :func:`_has_header` decides."""
    import pandas as pd

    try:
        with path.open(encoding="utf8") as file:
            words = [word.strip().strip('"') for word in file.readline().split(",")]
        if header is None:
            header = _has_header(words)
        index = 0 if header and words[0] == "" and len(words) > 1 else None
        return pd.read_csv(path, header=0 if header else None, index_col=index, skipinitialspace=True)
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise ValueError(f"{path} is no CSV file that can be read: {error}") from error


def _has_header(words: list[str]) -> bool:
    """Whether a CSV file's first line names columns.

    It does if a field is neither a number nor a gap, or if the fields are 0, 1, 2 ... in this order: names
    that pandas gives. An empty field before them is the name of pandas' index.

    Example:
        >>> _has_header(["time", "1"]), _has_header(["0", "1", "2"]), _has_header(["0.5", "", "nan"])
        (True, True, False)
    """
    names = words[1:] if words[0] == "" else words
    if len(names) > 1 and names == [str(i) for i in range(len(names))]:
        return True
    for word in words:
        try:
            float(word or "nan")
        except ValueError:
            return True
    return False


def read_windows(
    path: Path, length: int | None, stride: int | None, columns: str | None, header: bool | None = None
) -> np.ndarray | Windows:
    """What a file holds: windows (N, C, L), or with ``length`` the :class:`Windows` of a series.

    Raises:
        ValueError: see :func:`read_numbers`; or the shape is wrong.
    """
    from companion.data.windows import cut_windows

    numbers = read_numbers(path, columns, header)
    if length is None:
        if stride is not None:
            raise ValueError("--stride is for a series: --length to fit, --series to score")
        if numbers.ndim not in (2, 3):
            raise ValueError(
                f"{path} holds {numbers.shape}; windows are (N, L) or (N, channels, L), or --length"
            )
        return numbers[:, None] if numbers.ndim == 2 else numbers
    if numbers.ndim > 2:
        raise ValueError(f"{path} holds {numbers.shape}; a series is (T,) or (T, channels)")
    return cut_windows(numbers.T, length, stride)


def hold_out(found: np.ndarray | Windows, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Windows to learn from, and windows for early stopping and the threshold.

    Single windows are drawn at random. Of a series the end is held out, and windows that reach over the
    border are left out, so that nothing is both learned and held out.

    Raises:
        ValueError: if one of the two is empty.
    """
    import numpy as np

    from companion.data.windows import Windows

    if isinstance(found, Windows):
        border = round((1 - share) * found.series_length)
        learn, held = found.values[found.ends <= border], found.values[found.starts >= border]
    else:
        order = np.random.default_rng(seed).permutation(len(found))
        cut = round(share * len(found))
        learn, held = found[np.sort(order[cut:])], found[np.sort(order[:cut])]
    known = [part[~np.isnan(part).all(axis=(1, 2))] for part in (learn, held)]
    if min(map(len, known)) == 0:
        raise ValueError(
            f"too few windows: {len(known[0])} to learn from and {len(known[1])} held out; "
            "give more data, another --validation or a smaller --length"
        )
    return known[0], known[1]


def fit_waveforms(
    file: File,
    out: Annotated[Path, typer.Option(help="Where to write the model.")],
    length: Length = None,
    stride: Stride = None,
    columns: Columns = None,
    header: Header = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the windows, at most.")] = 50,
    bottleneck: Annotated[int, typer.Option(min=1, help="Numbers in the latent vector.")] = 8,
    depth: Annotated[int, typer.Option(min=1, help="How often the length is halved.")] = 4,
    standardize: Annotated[str, typer.Option(help="window, channel or none.")] = "window",
    validation: Annotated[float, typer.Option(help="The share that is held out.")] = 0.2,
    fpr: Annotated[
        float, typer.Option(help="The false-positive rate that the threshold should keep.")
    ] = 0.01,
    seed: Annotated[int, typer.Option(help="Decides everything random.")] = 0,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, mps; chosen if not given.")] = None,
) -> None:
    """Learn what normal windows look like: a residual autoencoder and a threshold."""
    with errors_as_messages():
        from companion.compute import pick_compute
        from companion.detection.thresholds import ThresholdError
        from companion.estimators import ResNetAE

        if not 0 < validation < 1:
            raise ValueError(f"--validation is a share between 0 and 1, not {validation}")
        if not 0 < fpr < 1:
            raise ValueError(f"--fpr is a share between 0 and 1, not {fpr}")
        learn, held = hold_out(read_windows(file, length, stride, columns, header), validation, seed)
        model = ResNetAE(
            depth=depth, bottleneck=bottleneck, seed=seed,
            standardize=standardize,  # type: ignore[arg-type]
        )  # fmt: skip
        compute = pick_compute(device, "float32")
        model.fit(learn, epochs=epochs, compute=compute, progress=file.name)
        try:
            model.calibrate(held, fpr)
            verdict = f"threshold {model.threshold_:.4g} for a false-positive rate of {fpr:g}"
        except ThresholdError as error:
            verdict = f"no threshold: {error}"
        model.save(out)
        print(
            f"learned from {len(learn)} windows of {learn.shape[1]} x {learn.shape[2]}, held out {len(held)}"
        )
        print(f"{verdict}\nwritten to {out}")


def score_waveforms(
    file: File,
    model: Annotated[Path, typer.Option(help="What `companion fit waveforms` wrote.")],
    out: Annotated[Path, typer.Option(help="A CSV file for the scores.")],
    series: Annotated[
        bool, typer.Option("--series", help="The file is a long series: cut it as --length does for fit.")
    ] = False,
    stride: Stride = None,
    columns: Columns = None,
    header: Header = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, mps; chosen if not given.")] = None,
) -> None:
    """Score windows: one line each, with a verdict if the model has a threshold.

    The columns are window, start and end (of a series: first sample, and the one behind the last), score, and
    flagged (1 or 0). A window without any number has no score.
    """
    with errors_as_messages():
        import pandas as pd

        from companion.compute import pick_compute
        from companion.data.windows import Windows
        from companion.estimators import ResNetAE

        detector = ResNetAE.load(model, pick_compute(device, "float32"))
        found = read_windows(file, detector.length_ if series else None, stride, columns, header)
        windows = found.values if isinstance(found, Windows) else found
        scores = detector.decision_function(windows)
        table = pd.DataFrame({"window": range(len(scores))})
        if isinstance(found, Windows):
            table = table.assign(start=found.starts, end=found.ends)
        table["score"] = scores
        line = f"{len(scores)} windows scored"
        if detector.threshold_ is not None:
            table["flagged"] = (scores > detector.threshold_).astype(int)
            line += f", {table['flagged'].sum()} flagged"
        missing = int(table["score"].isna().sum())
        if missing:
            line += f", {missing} without any number"
        with atomic_path(out) as part:
            table.to_csv(part, index=False)
        print(f"{line}; written to {out}")


def register(fit_app: typer.Typer, score_app: typer.Typer) -> None:
    """Add ``waveforms`` to ``companion fit`` and ``companion score``."""
    fit_app.command("waveforms")(fit_waveforms)
    score_app.command("waveforms")(score_waveforms)
