"""Picture of predicted against recorded chunks, one panel a joint and an episode, and of the error along the chunk."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from .open_loop_result import HOLD_STILL, POLICY, EpisodeChunks, OpenLoopResult, spread

_NUM_CHUNKS_DRAWN = 12
_SMALLEST_SPAN = 4.0
_PREDICTED_COLOR, _RECORDED_COLOR, _BASELINE_COLOR = "tab:orange", "tab:blue", "tab:gray"
_PANEL_WIDTH, _PANEL_HEIGHT, _FRAME_HEIGHT = 7.5, 2.6, 0.9  # [inch]


def plot_chunks(result: OpenLoopResult, path: Path) -> None:
    """Draw predicted against recorded chunks, and the error along the chunk below them.

    Args:
        result: The open-loop check.
        path: The PNG.
    """
    # The object interface needs no display and leaves the global state of pyplot alone.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = [(episode, joint) for joint in range(len(result.joints)) for episode in result.episodes]
    # One episode: joints side by side. Several: a row a joint, a column an episode.
    columns = len(result.episodes) if len(result.episodes) > 1 else min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    size = (_PANEL_WIDTH * columns, _PANEL_HEIGHT * (rows + 1) + _FRAME_HEIGHT)
    figure = Figure(figsize=size, dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=[rows, 1])[:, 0]
    axes = above.subplots(rows, columns, squeeze=False, sharex="col").flatten()
    for place, (episode, joint) in zip(axes, panels, strict=False):
        _draw_joint(place, result, episode, joint)
    for place in axes[len(panels) :]:
        place.axis("off")
    for place in axes[-columns:]:
        place.set_xlabel("time in the episode [s]")
    _draw_error_by_step(below.subplots(), result)
    figure.suptitle(_title(result))
    above.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.savefig(path)


def _title(result: OpenLoopResult) -> str:
    named = ", ".join(f"{episode.episode} ({episode.standing})" for episode in result.episodes)
    return (
        f"Episode {named}: chunks of {len(result.steps)} steps ({len(result.steps) / result.fps_hz:.1f} s) predicted "
        f"from recorded frames. Mean error {result.mean_error(POLICY):.1f} {result.mean_unit}"
    )


def _draw_joint(axes: Any, result: OpenLoopResult, episode: EpisodeChunks, joint: int) -> None:
    times_s = np.arange(len(episode.actions)) / result.fps_hz
    axes.plot(times_s, episode.actions[:, joint], color=_RECORDED_COLOR, lw=1.5, label="recorded action")
    for number, chunk in enumerate(spread(len(episode.frames), _NUM_CHUNKS_DRAWN)):
        inside = episode.inside[chunk]
        times_s = (episode.frames[chunk] + result.steps[inside]) / result.fps_hz
        values = episode.predicted[POLICY][chunk, inside, joint]
        label, first = (None, None) if number else ("predicted chunk", "its first step")
        axes.plot(times_s, values, color=_PREDICTED_COLOR, lw=1.8, label=label)
        axes.plot(times_s[:1], values[:1], "o", color=_PREDICTED_COLOR, ms=4, label=first)
    unit = result.units[joint]
    error = np.nanmean(episode.absolute_errors(POLICY)[..., joint])
    where = f" in episode {episode.episode}" if len(result.episodes) > 1 else ""
    axes.set_title(f"{result.joints[joint]}{where}: mean error {error:.1f} {unit}", fontsize=10)
    axes.set_ylabel(f"position [{unit}]")
    axes.grid(alpha=0.3)
    low, high = axes.get_ylim()
    if high - low < _SMALLEST_SPAN:  # a joint that stands still would fill the panel with its last bits
        axes.set_ylim((low + high - _SMALLEST_SPAN) / 2, (low + high + _SMALLEST_SPAN) / 2)


def _draw_error_by_step(axes: Any, result: OpenLoopResult) -> None:
    times_s = result.steps / result.fps_hz
    for name, color in ((POLICY, _PREDICTED_COLOR), (HOLD_STILL, _BASELINE_COLOR)):
        axes.plot(times_s, result.error_by_step(name), "o-", ms=3, color=color, label=name)
    axes.set_xlabel("time ahead in the chunk [s]")
    axes.set_ylabel(f"mean error [{result.mean_unit}]")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left")
