"""What `lerobot-vla demo` found: a table, and the same figures as a JSON file."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .demo_steps import RolloutSummary
from .error_tables import format_errors, format_steps, verdicts
from .open_loop_result import OpenLoopResult
from .training_log import LOSS, TrainingLog

# Of a policy that speaks in tokens; on what it is trained on, as the loss.
_TOKEN_FIGURES = ("token_accuracy", "decoded_error")


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
                "first_loss": self.training.first(LOSS),
                "last_loss": self.training.last(LOSS),
                **{name: self.training.last(name) for name in _TOKEN_FIGURES if name in self.training.figures},
            },
            "rollout": asdict(self.rollout),
            "open_loop": {
                "episodes": [episode.episode for episode in result.episodes],
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
        ("loss", f"{training.first(LOSS):.3f} -> {training.last(LOSS):.3f}"),
        *_token_rows(training),
        ("control rate", f"{rollout.rate_hz:.1f} Hz of {rollout.wanted_hz:g} Hz"),
        ("longest pause", f"{rollout.longest_pause_s * 1000:.0f} ms between two actions"),
        ("ticks written", f"{rollout.ticks_written} in {rollout.goal_writes} actions"),
        ("joints in range", f"{in_range}; the widest swing was {moved:.0f} deg"),
        ("cubes touched", f"{rollout.touches} during the rollout"),
        ("time", ", ".join(f"{step} {value:.0f} s" for step, value in summary.seconds.items())),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"  {name:<{width}}  {value}" for name, value in rows]
    sentences = [f"  {sentence}" for sentence in verdicts(open_loop)]
    return "\n".join([*lines, "", format_errors(open_loop), "", format_steps(open_loop), "", *sentences])


def _token_rows(training: TrainingLog) -> list[tuple[str, str]]:
    if not set(_TOKEN_FIGURES) <= training.figures.keys():
        return []
    accuracy, error = (training.last(name) for name in _TOKEN_FIGURES)
    return [("tokens", f"{accuracy:.0%} right, decoded {error:.2f} off in robot units, on the training data")]
