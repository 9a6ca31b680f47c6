"""What `lerobot-vla demo` found: a table, and the same figures as a JSON file."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .demo_steps import EvaluationSummary
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
        evaluation: How the policy did on the arm.
        open_loop: The open-loop check.
        seconds: Step -> how long it took, in [s].
    """

    training: TrainingLog
    evaluation: EvaluationSummary
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
            "evaluation": asdict(self.evaluation),
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
    training, evaluation, open_loop = summary.training, summary.evaluation, summary.open_loop
    in_range = "all" if not evaluation.out_of_range else f"all but {', '.join(evaluation.out_of_range)}"
    moved = max(evaluation.swing_deg.values(), default=0.0)
    rows = [
        ("recorded", f"{open_loop.dataset_frames} frames in {open_loop.dataset_episodes} episodes"),
        ("training", f"{training.median_samples_per_s:.0f} samples/s"),
        ("loss", f"{training.first(LOSS):.3f} -> {training.last(LOSS):.3f}"),
        *_token_rows(training),
        ("ticks written", f"{evaluation.ticks_written} in {evaluation.goal_writes} actions"),
        ("joints in range", f"{in_range}; the widest swing was {moved:.0f} deg"),
        ("success", describe_success(evaluation.figures)),
        ("time", ", ".join(f"{step} {value:.0f} s" for step, value in summary.seconds.items())),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"  {name:<{width}}  {value}" for name, value in rows]
    sentences = [f"  {sentence}" for sentence in verdicts(open_loop)]
    return "\n".join([*lines, "", format_errors(open_loop), "", format_steps(open_loop), "", *sentences])


def describe_success(figures: Mapping[str, Any]) -> str:
    """How often the named cube was touched first, and what happened otherwise.

    Args:
        figures: Of the evaluation's report.
    """
    successes, trials = figures["successes"], figures["n"]
    if not trials:
        return "no attempt was finished"
    low, high = figures["wilson_95"]
    time_s, other = figures["median_time_to_success_s"], figures["taken"].get("other", 0)
    when = "" if time_s is None else f", after {time_s:.1f} s"
    return (
        f"{successes} of {trials} scenes ({low:.0%} to {high:.0%} with 95 % certainty){when}; "
        f"the other cube was touched first in {other}"
    )


def _token_rows(training: TrainingLog) -> list[tuple[str, str]]:
    if not set(_TOKEN_FIGURES) <= training.figures.keys():
        return []
    accuracy, error = (training.last(name) for name in _TOKEN_FIGURES)
    return [("tokens", f"{accuracy:.0%} right, decoded {error:.2f} off in robot units, on the training data")]
