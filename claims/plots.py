"""A plot of published numbers and ours: the same file for the same numbers."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.ticker import ScalarFormatter

from claims.claim import ComparisonPlot


def draw(plot: ComparisonPlot, path: Path) -> None:
    """Writes an SVG: published lines in full, ours as crosses with their bands.

    Its ids do not change from run to run, and text stays text.
    """
    with plt.rc_context():
        sns.set_theme(style="whitegrid", palette="colorblind")
        plt.rc("svg", hashsalt="claims", fonttype="none")
        figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
        colors = sns.color_palette()
        for at, curve in enumerate(plot.published):
            axes.plot(curve.x, curve.y, marker="o", color=colors[at], label=f"{curve.name}, published")
        for at, curve in enumerate(plot.ours):
            low = [value - end for value, end in zip(curve.y, curve.low or curve.y, strict=True)]
            high = [end - value for value, end in zip(curve.y, curve.high or curve.y, strict=True)]
            axes.errorbar(
                curve.x,
                curve.y,
                (low, high),
                fmt="x",
                markersize=8,
                capsize=4,
                color=colors[at],
                label=f"{curve.name}, ours",
            )
        axes.set(xlabel=plot.x, ylabel=plot.y)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.legend(fontsize="small")
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)
