"""Draw the pictures of the README and of link previews from the recorded run: python tools/pictures.py."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from PIL import Image

from companion import figures
from companion.runs import load_run

STATIC = Path(__file__).parents[1] / "book" / "_static"
WIDTH, HEIGHT, DPI = 1200, 630, 100


def main() -> None:
    """Write both pictures: the curves, with the date of the run; and the book's name beside them."""
    mpl.use("agg")
    figures.use_style()
    run = load_run("degradation-full-cpu")
    curves = {net: 100 * run.curve(f"{net}.error") for net in run.config["nets"]}
    num_steps = run.config["fit"]["num_steps"]
    fig = figures.plot_nets(curves, num_steps, ylabel="training error, %", synthetic=run.data.synthetic)
    fig.suptitle(f"recorded on {run.date}, {run.hardware}", fontsize=8, color=figures.GRAY)
    fig.savefig(STATIC / "degradation.png", dpi=150)

    plt.rcParams.update({"figure.constrained_layout.use": False, "font.size": 15})
    fig = plt.figure(figsize=(WIDTH / DPI, HEIGHT / DPI))
    ax = fig.add_axes((0.475, 0.175, 0.49, 0.70))
    for net, errors in curves.items():
        steps = (np.arange(errors.shape[1]) + 1) * num_steps / errors.shape[1]
        figures.plot_series(ax, steps, errors, figures.net_label(net), **figures.net_style(net), linewidth=3)
    ax.set(xlabel="training step", ylabel="training error, %")
    ax.legend(handlelength=2.6)
    figures.mark_synthetic(ax, run.data.synthetic)
    name = "Residual\nNetworks,\nMeasured"
    fig.text(0.05, 0.80, name, fontsize=46, weight="bold", va="top", linespacing=1.1)
    fig.text(0.05, 0.265, "An executable book: what you see", fontsize=17, color="#444444")
    fig.text(0.05, 0.205, "was measured.", fontsize=17, color="#444444")
    fig.text(0.475, 0.92, f"CIFAR-10, recorded on {run.date}", fontsize=13, color="#666666")
    fig.canvas.draw()
    picture = Image.fromarray(np.asarray(fig.canvas.buffer_rgba())).convert("RGB")
    few_colours = picture.quantize(64, dither=Image.Dither.NONE)  # make a small file
    few_colours.save(STATIC / "social.png", optimize=True)


if __name__ == "__main__":
    main()
