"""What `lerobot-vla demo` found: a table, a JSON file, and a picture of predicted against recorded chunks."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .demo_steps import RolloutSummary
from .open_loop import POLICY, OpenLoopResult
from .training_log import TrainingLog

_NUM_CHUNKS_DRAWN = 12
_SMALLEST_SPAN = 4.0
_PREDICTED_COLOR, _RECORDED_COLOR = "tab:orange", "tab:blue"


@dataclass(frozen=True, slots=True)
class DemoSummary:
    """Everything the table shows.

    Attributes:
        training: Figures of the training run.
        rollout: The rollout.
        open_loop: The open-loop check.
        seconds: Step -> how long it took, in [s].
    """

    training: TrainingLog
    rollout: RolloutSummary
    open_loop: OpenLoopResult
    seconds: Mapping[str, float]

    def as_dict(self) -> dict[str, Any]:
        """The figures as JSON knows them; errors by predictor and joint."""
        result = self.open_loop
        return {
            "frames": result.dataset_frames,
            "episodes": result.dataset_episodes,
            "training": {
                "samples_per_s": self.training.median_samples_per_s,
                "first_loss": self.training.first_loss,
                "last_loss": self.training.last_loss,
            },
            "rollout": asdict(self.rollout),
            "open_loop": {
                "episode": result.episode,
                "units": dict(zip(result.joints, result.units, strict=True)),
                "mean_absolute_error": {
                    name: {
                        **{joint: float(e) for joint, e in zip(result.joints, errors, strict=True)},
                        "mean": result.mean_error(name),
                    }
                    for name, errors in result.errors.items()
                },
                "beats_baselines": result.beats_baselines,
                "looks_at_images": result.looks_at_images,
            },
            "seconds": {step: round(value, 1) for step, value in self.seconds.items()},
        }


def write_json(summary: DemoSummary, path: Path) -> None:
    """Write the figures of the table as JSON.

    Args:
        summary: What to write.
        path: The file.
    """
    path.write_text(json.dumps(summary.as_dict(), indent=2) + "\n")


def format_table(summary: DemoSummary) -> str:
    """The summary as lines for a terminal.

    Args:
        summary: What to show.
    """
    training, rollout, open_loop = summary.training, summary.rollout, summary.open_loop
    in_range = "all" if not rollout.out_of_range else f"all but {', '.join(rollout.out_of_range)}"
    moved = max(rollout.swing_deg.values(), default=0.0)
    rows = [
        ("recorded", f"{open_loop.dataset_frames} frames in {open_loop.dataset_episodes} episodes"),
        ("training", f"{training.median_samples_per_s:.0f} samples/s"),
        ("loss", f"{training.first_loss:.3f} -> {training.last_loss:.3f}"),
        ("control rate", f"{rollout.rate_hz:.1f} Hz of {rollout.wanted_hz:g} Hz"),
        ("longest pause", f"{rollout.longest_pause_s * 1000:.0f} ms between two actions"),
        ("ticks written", f"{rollout.ticks_written} in {rollout.goal_writes} actions"),
        ("joints in range", f"{in_range}; the widest swing was {moved:.0f} deg"),
        ("cubes touched", f"{rollout.touches} during the rollout"),
        ("time", ", ".join(f"{step} {value:.0f} s" for step, value in summary.seconds.items())),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"  {name:<{width}}  {value}" for name, value in rows]
    return "\n".join([*lines, "", format_errors(open_loop)])


def format_errors(result: OpenLoopResult) -> str:
    """Open-loop errors, one row a joint and one column a predictor, and what they mean.

    Args:
        result: The open-loop check.
    """
    rows = [("", *result.errors)]
    for index, (joint, unit) in enumerate(zip(result.joints, result.units, strict=True)):
        rows.append((f"{joint} [{unit}]", *(f"{errors[index]:.2f}" for errors in result.errors.values())))
    rows.append((f"mean [{result.mean_unit}]", *(f"{result.mean_error(name):.2f}" for name in result.errors)))
    label = max(len(row[0]) for row in rows)
    lines = [f"  {row[0]:<{label}}" + "".join(f"{cell:>17}" for cell in row[1:]) for row in rows]
    title = f"  Open-loop error (mean absolute), episode {result.episode}, not trained on:"
    return "\n".join([title, *lines, "", *(f"  {verdict}" for verdict in verdicts(result))])


def verdicts(result: OpenLoopResult) -> list[str]:
    """What the errors mean, in one sentence each.

    Args:
        result: The open-loop check.
    """
    better = "beats both baselines" if result.beats_baselines else "DOES NOT beat both baselines"
    sees = (
        "It looks at its images: with those of other frames it gets clearly worse."
        if result.looks_at_images
        else "It does NOT look at its images: with those of other frames it is hardly worse."
    )
    return [f"The policy {better}.", sees]


def plot_chunks(result: OpenLoopResult, path: Path) -> None:
    """Draw predicted against recorded chunks, one panel a joint.

    Args:
        result: The open-loop check.
        path: The PNG.
    """
    # The object interface needs no display and leaves the global state of pyplot alone.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(2, len(result.joints))
    rows = math.ceil(len(result.joints) / columns)
    figure = Figure(figsize=(7.5 * columns, 2.6 * rows + 0.9), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True).flatten()
    for index, axes in enumerate(panels):
        if index < len(result.joints):
            _draw_joint(axes, result, index)
        else:
            axes.axis("off")
    for axes in panels[-columns:]:
        axes.set_xlabel("time in the episode [s]")
    steps = result.predicted.shape[1]
    figure.suptitle(
        f"Held-out episode {result.episode}: chunks of {steps} steps ({steps / result.fps_hz:.1f} s) predicted from "
        f"recorded frames. Mean error {result.mean_error(POLICY):.1f} {result.mean_unit}"
    )
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.savefig(path)


def _draw_joint(axes: Any, result: OpenLoopResult, joint: int) -> None:
    chunks = np.unique(np.linspace(0, len(result.frames) - 1, _NUM_CHUNKS_DRAWN).round().astype(int))
    first_step_s = (result.frames + result.steps[0]) / result.fps_hz
    axes.plot(first_step_s, result.recorded[:, 0, joint], color=_RECORDED_COLOR, lw=1.5, label="recorded action")
    for number, chunk in enumerate(chunks):
        inside = result.inside[chunk]
        times_s = (result.frames[chunk] + result.steps[inside]) / result.fps_hz
        values = result.predicted[chunk, inside, joint]
        axes.plot(times_s, values, color=_PREDICTED_COLOR, lw=1.8, label=None if number else "predicted chunk")
        axes.plot(
            times_s[:1], values[:1], "o", color=_PREDICTED_COLOR, ms=4, label=None if number else "its first step"
        )
    unit = result.units[joint]
    error = result.errors[POLICY][joint]
    axes.set_title(f"{result.joints[joint]}: mean error {error:.1f} {unit}", fontsize=10)
    axes.set_ylabel(f"position [{unit}]")
    axes.grid(alpha=0.3)
    low, high = axes.get_ylim()
    if high - low < _SMALLEST_SPAN:  # a joint that stands still would fill the panel with its last bits
        axes.set_ylim((low + high - _SMALLEST_SPAN) / 2, (low + high + _SMALLEST_SPAN) / 2)
