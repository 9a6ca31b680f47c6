"""Rate against distortion of action tokenizers, as a picture."""

from pathlib import Path
from typing import Any

import numpy as np

from .tokenizer_table import Comparison

_ROOM = 1.2  # left and right of the points


def plot_comparison(comparison: Comparison, path: Path) -> None:
    """Draw tokens per chunk against the mean and the largest error, one line a series.

    Args:
        comparison: What to draw.
        path: The PNG.
    """
    # The object interface needs no display and leaves the global state of pyplot alone.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2, sharex=True)
    for axes, name in zip(panels, ("mean", "largest"), strict=True):
        _draw(axes, comparison, largest=name == "largest")
        axes.set_xlabel("tokens per chunk")
        axes.set_ylabel(f"{name} error [{comparison.units[0].name}]")
    folds, steps = len(comparison.folds), comparison.chunk_size
    figure.suptitle(f"Chunks of {steps} steps of episodes that were not fitted to; bars: the spread over {folds} folds")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.savefig(path)


def _draw(axes: Any, comparison: Comparison, *, largest: bool) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    series = dict.fromkeys(result.row.series for result in comparison.results)
    for name in series:
        results = [result for result in comparison.results if result.row.series == name]
        tokens = np.array([result.tokens for result in results])
        errors = np.array([[fold.error_max.max() for fold in r.folds] if largest else r.errors for r in results])
        order = np.argsort(tokens.mean(axis=1))
        tokens, errors = tokens[order], errors[order]
        axes.errorbar(
            tokens.mean(axis=1),
            errors.mean(axis=1),
            _spread(errors),
            _spread(tokens),
            "o-",
            ms=4,
            capsize=2,
            label=name,
        )
    rates = [result.tokens for result in comparison.results]
    axes.set_xlim(np.min(rates) / _ROOM, np.max(rates) * _ROOM)
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
    axes.grid(which="both", alpha=0.3)


def _spread(values: np.ndarray) -> np.ndarray:
    """Distances from the mean over the folds to the lowest and to the highest, (2, n)."""
    mean = values.mean(axis=1)
    return np.stack([mean - values.min(axis=1), values.max(axis=1) - mean])
