"""Draw the README's picture from the recorded run: python tools/cover.py."""

from __future__ import annotations

from pathlib import Path

from companion import figures
from companion.runs import load_run

TARGET = Path(__file__).parents[1] / "book" / "_static" / "degradation.png"


def main() -> None:
    """Write the picture, with the date of the run in it."""
    figures.use_style()
    run = load_run("degradation-full-cpu")
    curves = {net: 100 * run.curve(f"{net}.error") for net in run.config["nets"]}
    num_steps = run.config["fit"]["num_steps"]
    fig = figures.plot_nets(curves, num_steps, ylabel="training error, %", synthetic=run.data.synthetic)
    fig.suptitle(f"recorded on {run.date}, {run.hardware}", fontsize=8, color=figures.GRAY)
    fig.savefig(TARGET, dpi=150)


if __name__ == "__main__":
    main()
