"""The steps of `lerobot-vla demo` that run commands: record on the twin, train, evaluate on the twin."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .arms.joints import TICKS_PER_TURN
from .child_process import LeRobotCommand, StepFailedError, run_command
from .demo_commands import (
    annotate_command,
    demonstrate_command,
    evaluate_command,
    make_twin,
    record_command,
    recording_s,
    report_command,
    tokenizer_command,
    train_command,
)
from .demo_recipe import DemoFolder, Recipe
from .progress import ClockBar, StepBar
from .training_log import LOSS, SAMPLES_PER_S, TrainingLog
from .twin.goal_log import GoalStatistics


@dataclass(frozen=True, slots=True)
class EvaluationSummary:
    """How the policy did on the arm.

    Attributes:
        figures: Of the evaluation's report, all episodes together.
        goal_writes: Instructions that wrote goal positions.
        ticks_written: Goal registers that they wrote.
        swing_deg: Joint -> angle between its lowest and its highest goal, in [deg].
        out_of_range: Joints with a goal beyond the limits of their servo.
    """

    figures: Mapping[str, Any]
    goal_writes: int
    ticks_written: int
    swing_deg: Mapping[str, float] = field(default_factory=dict)
    out_of_range: Sequence[str] = ()


def record(folder: DemoFolder, recipe: Recipe, seed: int) -> None:
    """Record a few episodes on a twin with `lerobot-record`, and write down which arm that was.

    Args:
        folder: Where the data set goes.
        recipe: How much to record.
        seed: Of the demo.

    Raises:
        StepFailedError: The command failed.
    """
    with make_twin(folder, recipe, seed, lock_step=False) as twin:
        command = record_command(twin, folder, recipe)
        _announce(command)
        with ClockBar("recording", recording_s(recipe), "Recording episode 0", "Stop recording") as bar:
            run_command(command, folder.log(command), bar.read_line, bar.tick)
    command = annotate_command(twin, folder)
    _announce(command)
    run_command(command, folder.log(command))


def demonstrate(folder: DemoFolder, recipe: Recipe, seed: int) -> None:
    """Record the demonstrations to train on.

    Args:
        folder: Where the data set goes.
        recipe: How many.
        seed: Of the demo.

    Raises:
        StepFailedError: The command failed.
    """
    command = demonstrate_command(folder, recipe, seed)
    _announce(command)
    run_command(command, folder.log(command))


def train(folder: DemoFolder, recipe: Recipe, policy: str, seed: int) -> TrainingLog:
    """Fit its action tokenizer if it has one, and train the policy.

    Args:
        folder: Where the data set lies and the checkpoint goes.
        recipe: How long to train.
        policy: Type of the policy.
        seed: Of weights and data order.

    Returns:
        The figures of its log.

    Raises:
        StepFailedError: The command failed.
    """
    if recipe.tokenizer:
        command = tokenizer_command(folder, recipe)
        _announce(command)
        run_command(command, folder.log(command))
    command = train_command(folder, recipe, policy, seed)
    _announce(command)
    log = TrainingLog()
    with StepBar("training", recipe.steps, "steps") as bar:
        bar.note(", starting")

        def read_line(line: str) -> None:
            log.read_line(line)
            bar.advance_to(log.step)
            if log.figures:
                bar.note(f", loss {log.last(LOSS):.3f}, {log.last(SAMPLES_PER_S):.0f} samples/s")

        run_command(command, folder.log(command), read_line)
    return log


def evaluate(folder: DemoFolder, recipe: Recipe, seed: int) -> EvaluationSummary:
    """Let the policy drive the follower of a twin, on scenes that it has not seen, and make a page of the report.

    Args:
        folder: Where the checkpoint lies.
        recipe: How many scenes.
        seed: Of the demo.

    Returns:
        How it did, and what it sent to the arm.

    Raises:
        StepFailedError: A command failed, or nothing was sent.
    """
    from .envs.episode_report import EPISODES, read_episodes, summarize

    with make_twin(folder, recipe, seed, lock_step=True) as twin:
        command = evaluate_command(twin, folder, recipe, seed)
        _announce(command)
        with StepBar("evaluating", recipe.scenes, "scenes") as bar:
            run_command(
                command,
                folder.log(command),
                on_tick=lambda: bar.advance_to(_count_lines(folder.evaluation / EPISODES)),
            )
        sent = twin.follower.goal_statistics()
    if not sent.writes:
        raise StepFailedError(f"{command.name} sent no action to the arm; see {folder.log(command)}")
    command = report_command(folder)
    _announce(command)
    run_command(command, folder.log(command))
    return summarize_evaluation(summarize(read_episodes(folder.evaluation))["overall"], sent)


def _count_lines(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


def summarize_evaluation(figures: Mapping[str, Any], sent: GoalStatistics) -> EvaluationSummary:
    """How the policy did, for the table.

    Args:
        figures: Of the evaluation's report.
        sent: Goals that were written meanwhile.
    """
    return EvaluationSummary(
        figures=figures,
        goal_writes=sent.writes,
        ticks_written=sent.ticks_written,
        swing_deg={joint: (high - low) * 360 / TICKS_PER_TURN for joint, (low, high) in sent.spans_ticks.items()},
        out_of_range=sent.out_of_range,
    )


def _announce(command: LeRobotCommand) -> None:
    print(f"\n{command}\n", flush=True)
