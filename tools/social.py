"""Draw the picture that previews of links show, from a recorded run: python tools/social.py."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from PIL import Image

from companion import figures
from companion.runs import load_run

TARGET = Path(__file__).parents[1] / "book" / "_static" / "social.png"
WIDTH, HEIGHT, DPI = 1200, 630, 100


def main() -> None:
    """Write the picture: the book's name beside the curves."""
    mpl.use("agg")
    figures.use_style()
    run = load_run("degradation-full-cpu")
    plt.rcParams.update({"figure.constrained_layout.use": False, "font.size": 15})
    fig = plt.figure(figsize=(WIDTH / DPI, HEIGHT / DPI))
    ax = fig.add_axes((0.475, 0.175, 0.49, 0.70))
    for net in run.config["nets"]:
        errors = 100 * run.curve(f"{net}.error")
        steps = (np.arange(errors.shape[1]) + 1) * run.config["fit"]["num_steps"] / errors.shape[1]
        figures.plot_series(ax, steps, errors, figures.net_label(net), **figures.net_style(net), linewidth=3)
    ax.set(xlabel="training step", ylabel="training error, %")
    ax.legend(handlelength=2.6)
    figures.mark_synthetic(ax, run.data.synthetic)
    fig.text(
        0.05, 0.80, "Residual\nNetworks,\nMeasured", fontsize=46, weight="bold", va="top", linespacing=1.1
    )
    fig.text(0.05, 0.265, "An executable book: what you see", fontsize=17, color="#444444")
    fig.text(0.05, 0.205, "was measured.", fontsize=17, color="#444444")
    fig.text(0.475, 0.92, f"CIFAR-10, recorded on {run.date}", fontsize=13, color="#666666")
    fig.canvas.draw()
    picture = Image.fromarray(np.asarray(fig.canvas.buffer_rgba())).convert("RGB")
    picture.quantize(64, dither=Image.Dither.NONE).save(
        TARGET, optimize=True
    )  # few colours make a small file


if __name__ == "__main__":
    main()
