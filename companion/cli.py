"""The command line, see ``companion --help``.

Modules that need PyTorch are imported inside the commands, so that help and lists come at once.
"""

from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
import yaml
from rich.console import Console
from rich.table import Table

from companion import __version__, cli_events, cli_images, cli_waveforms
from companion.cli_common import errors_as_messages
from companion.data import fetch
from companion.data.download import MIRROR_VARIABLE, REGISTRY, DataError, cache_folder


def tell_version(asked: bool) -> None:
    """Print the versions and what would be computed on, and stop."""
    if asked:
        with errors_as_messages():
            from companion.compute import describe_hardware, pick_compute
            from companion.runs import library_versions

            versions = {"companion": __version__} | library_versions()
            device = pick_compute().device
            print(", ".join(f"{name} {version}" for name, version in versions.items()))
            print(f"computes on {device}: {describe_hardware(device)}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", is_eager=True, callback=tell_version, help="Print versions and device.")
]
app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")


@app.callback()
def about(version: Version = False) -> None:
    """Residual Networks, Measured: data, experiments and recorded runs."""


data_app = typer.Typer(help="Get and list the data sets.", no_args_is_help=True)
app.add_typer(data_app, name="data")
KINDS = {"images": cli_images, "waveforms": cli_waveforms, "events": cli_events, "rows": cli_events}
for verb, told in {
    "fit": "Fit a detector to data of your own.",
    "score": "Score data of your own with a fitted detector.",
    "evaluate": "Measure a fitted detector on labelled data.",
    "calibrate": "Set another threshold of a fitted detector.",
}.items():
    group = typer.Typer(help=told, no_args_is_help=True, rich_markup_mode="markdown")
    app.add_typer(group, name=verb)
    for kind, module in KINDS.items():
        if command := getattr(module, f"{verb}_{kind}", None):
            group.command(kind)(errors_as_messages()(command))

Names = Annotated[list[str] | None, typer.Argument(help="Data sets; all if none is named.")]
Run = Annotated[str, typer.Argument(metavar="RUN", help="A recorded run: stem or path of its JSON.")]
EXPERIMENTS = yaml.safe_load((Path(__file__).parent / "experiments/scales.yaml").read_text("utf8"))


@data_app.command("list")
def list_data() -> None:
    """List the data sets, their licences, and whether they are here."""
    table = Table("name", "what", "licence", "download", "here")
    for dataset in REGISTRY.values():
        here = (cache_folder() / dataset.cached).is_file()
        size = max(source.size for source in dataset.sources) / 1e6
        told = f"{size:.{0 if size >= 1 else 1}f} MB"
        table.add_row(dataset.name, dataset.title, dataset.licence, told, "yes" if here else "no")
    console = Console()
    console.print(table)
    console.print(f"cache: {cache_folder()}", highlight=False, soft_wrap=True)


@data_app.command("fetch")
@errors_as_messages()
def fetch_data(names: Names = None) -> None:
    """Get data sets into the cache, and check those that are there: damaged ones are fetched again."""
    if unknown := sorted(set(names or []) - REGISTRY.keys()):
        raise DataError(f"unknown data set {', '.join(unknown)}; there are: {', '.join(REGISTRY)}")
    failures = []
    for name in names or REGISTRY:
        try:
            print(f"{name}: here, from {fetch(REGISTRY[name])}")
        except DataError as error:  # the others may still be had
            failures.append(str(error))
    if failures:
        raise DataError("\n".join(failures))


@app.command()
@errors_as_messages()
def run(
    name: Annotated[str, typer.Argument(help=f"The experiment: {', '.join(EXPERIMENTS)}.")],
    scale: Annotated[str, typer.Option(help="smoke, live or full.")] = "live",
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds, from 0 on.")] = 1,
    out: Annotated[Path, typer.Option(help="Folder for the recorded run.")] = Path("runs"),
    resume: Annotated[bool, typer.Option("--resume", help="Continue a run that was stopped.")] = False,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or mps; by default the best.")] = None,
    allow_synthetic: Annotated[bool, typer.Option(help="Record a run on stand-in data, too.")] = False,
) -> None:
    """Run an experiment over several seeds, record the result as JSON, and print its metrics."""
    from companion.compute import pick_compute
    from companion.experiments import get_experiment
    from companion.experiments.base import check_scale
    from companion.experiments.runner import execute
    from companion.runs import load_run

    experiment = get_experiment(name)
    check_scale(scale)
    if experiment.data().synthetic and not allow_synthetic:
        raise DataError(
            f"the data of {name!r} are out of reach. `companion data fetch` or {MIRROR_VARIABLE} "
            "gets them; --allow-synthetic records a run on the stand-in, marked as such"
        )
    compute = pick_compute(device)
    path = execute(experiment, scale, list(range(seeds)), compute=compute, out=out, resume=resume)
    recorded, table = load_run(str(path)), Table("metric", "mean", "standard deviation")
    for metric, values in pd.DataFrame([result.metrics for result in recorded.results]).items():
        deviation = f"{values.std():.2g}" if values.count() > 1 else ""  # some seeds may lack a metric
        table.add_row(str(metric), f"{values.mean():.4g}", deviation)
    Console().print(table)
    print(f"recorded in {path}")


@app.command()
@errors_as_messages()
def card(run_name: Run) -> None:
    """Print the model card of a recorded run, Markdown in the format of the Hugging Face hub."""
    from companion.model_cards import model_card
    from companion.runs import load_run

    print(model_card(load_run(run_name)), end="")
