"""The book's figures: one style, narrow for phones, a colour and a line for each kind of net."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from cycler import cycler
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's palette, told apart with any colour vision
BLUE, VERMILLION, GREEN, PURPLE, GRAY = "#0072B2", "#D55E00", "#009E73", "#AA4499", "#777777"
COLORS = {"plain": VERMILLION, "resnet": BLUE, "preact": GREEN}
LINES = {20: (0, (4, 1.5)), 32: (0, (1, 1)), 44: (0, (5, 1, 1, 1)), 56: "solid", 110: (0, (8, 2))}
STYLE: dict[str, Any] = {
    "figure.figsize": (5.6, 3.6), "figure.constrained_layout.use": True, "font.size": 11,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
    "axes.prop_cycle": cycler(color=[BLUE, VERMILLION, GREEN, PURPLE, GRAY]), "grid.color": "#dddddd",
    "grid.linewidth": 0.7, "legend.frameon": False, "lines.linewidth": 1.8,
}  # fmt: skip


def use_style() -> None:
    """Set the book's style, at twice the resolution in a notebook."""
    mpl.rcParams.update(STYLE)  # type: ignore[arg-type]
    if "inline" in mpl.get_backend():
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("retina")  # type: ignore[no-untyped-call]


def net_style(net: str) -> dict[str, Any]:
    """Colour by kind and line by depth of a net called ``"plain-20"``; unknown depths are solid."""
    kind, _, depth = net.partition("-")
    return {"color": COLORS[kind], "linestyle": LINES.get(int(depth), "solid")}


def net_label(net: str) -> str:
    """How a net is written in figures and tables: ``"resnet-56"`` as ``"ResNet-56"``, and so on."""
    return net.replace("resnet", "ResNet").replace("preact", "pre-activation ResNet")


def plot_series(
    ax: Axes, x: Sequence[float] | np.ndarray, curves: np.ndarray, label: str, **style: Any
) -> None:
    """Draw the mean of ``curves`` (seeds, points) over ``x`` (points,), and the seeds' range as a band."""
    (line,) = ax.plot(x, curves.mean(axis=0), label=label, **style)
    if len(curves) > 1:
        low, high = curves.min(axis=0), curves.max(axis=0)
        ax.fill_between(x, low, high, color=line.get_color(), alpha=0.18, linewidth=0)


def panels(rows: int, columns: int, xlabel: str, sharey: bool = True, synthetic: bool = False) -> list[Axes]:
    """Small plots over one axis, row by row; the lowest have its label."""
    size = (5.7, 1.95 * rows)
    axes = plt.subplots(rows, columns, figsize=size, sharex=True, sharey=sharey, squeeze=False)[1]
    for ax in axes[-1]:
        ax.set_xlabel(xlabel)
    mark_synthetic(axes[0, -1], synthetic)
    return list(axes.flat)


def show_images(
    pictures: Sequence[np.ndarray], titles: Sequence[str] = (), columns: int = 4, size: float = 1.4
) -> Figure:
    """Pictures (H, W, 3) or (H, W) in rows of inches ``size`` a picture, with a short title each, or none."""
    rows = -(-len(pictures) // columns)
    height = size * (1.22 if titles else 1.05)
    fig, axes = plt.subplots(rows, columns, figsize=(size * columns, height * rows), squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for index, (ax, picture) in enumerate(zip(axes.flat, pictures, strict=False)):
        ax.imshow(picture, cmap="gray", interpolation="nearest")
        if titles:
            ax.set_title(titles[index], fontsize=9)
    return fig


def mark_synthetic(ax: Axes, synthetic: bool) -> None:
    """Say inside the figure that the data were generated, where they were."""
    if synthetic:
        ax.set_title("synthetic stand-in data", fontsize=9, color=GRAY, loc="right")


def plot_nets(
    curves: Mapping[str, np.ndarray], num_steps: int, *, ylabel: str, synthetic: bool = False
) -> Figure:
    """One curve a net over the training steps, of (seeds, points) that divide the training evenly."""
    fig, ax = plt.subplots()
    for net, values in curves.items():
        points = values.shape[1]
        steps = (np.arange(points) + 1) * num_steps / points
        plot_series(ax, steps, values, net_label(net), **net_style(net))
    ax.set(xlabel="training step", ylabel=ylabel)
    ax.legend(handlelength=3)
    mark_synthetic(ax, synthetic)
    return fig
