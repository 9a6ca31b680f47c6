"""The steps of `lerobot-vla demo` that run LeRobot's commands: record and roll out on the twin, train in between."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .arms.joints import TICKS_PER_TURN
from .child_process import LeRobotCommand, StepFailedError, run_command
from .demo_commands import (
    DemoFolder,
    Recipe,
    annotate_command,
    record_command,
    rollout_command,
    tokenizer_command,
    train_command,
)
from .progress import ClockBar, StepBar
from .training_log import LOSS, SAMPLES_PER_S, TrainingLog
from .twin.cameras import CameraConfig
from .twin.goal_log import GoalStatistics
from .twin.so101 import SO101Twin, TwinConfig

# Square, as the tiny backbone takes them: no pixel is spent on padding.
_PICTURE_PX = 96
_CAMERA_FPS_SURPLUS = 5  # a little faster than the recording, so that no picture is recorded twice


@dataclass(frozen=True, slots=True)
class RolloutSummary:
    """What the policy sent to the arm.

    Attributes:
        goal_writes: Instructions that wrote goal positions.
        ticks_written: Goal registers that they wrote.
        rate_hz: Mean rate of the instructions; 0 for fewer than two.
        wanted_hz: Rate that was asked for.
        longest_pause_s: Longest time between two of them.
        swing_deg: Joint -> angle between its lowest and its highest goal, in [deg].
        out_of_range: Joints with a goal beyond the limits of their servo.
        touches: Cubes that the arm touched.
    """

    goal_writes: int
    ticks_written: int
    rate_hz: float
    wanted_hz: float
    longest_pause_s: float
    swing_deg: Mapping[str, float] = field(default_factory=dict)
    out_of_range: Sequence[str] = ()
    touches: int = 0


def make_twin(folder: DemoFolder, recipe: Recipe, seed: int) -> SO101Twin:
    """A twin with port names of its own, so that one that runs already is not in the way.

    Args:
        folder: Where the port names lie.
        recipe: Decides the rate of the cameras.
        seed: Of the places where the cube appears.
    """
    cameras = CameraConfig(width=_PICTURE_PX, height=_PICTURE_PX, fps=recipe.fps + _CAMERA_FPS_SURPLUS)
    return SO101Twin(TwinConfig(seed=seed, cameras=cameras, directory=folder.root / "ports"))


def record(folder: DemoFolder, recipe: Recipe, seed: int) -> int:
    """Record the data set on a twin, and write down which arm that was.

    Args:
        folder: Where the data set goes.
        recipe: How much to record.
        seed: Of the places where the cube appears.

    Returns:
        Number of cubes that the scripted person touched.

    Raises:
        StepFailedError: The command failed.
    """
    with make_twin(folder, recipe, seed) as twin:
        command = record_command(twin, folder, recipe)
        _announce(command)
        total_s = recipe.episodes * recipe.episode_s
        with ClockBar("recording", total_s, "Recording episode 0", "Stop recording") as bar:
            run_command(command, folder.log(command), bar.read_line, bar.tick)
        touches = twin.task.touches
    command = annotate_command(twin, folder)
    _announce(command)
    run_command(command, folder.log(command))
    return touches


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


def roll_out(folder: DemoFolder, recipe: Recipe, seed: int) -> RolloutSummary:
    """Let the policy drive the follower of a twin.

    Args:
        folder: Where the checkpoint lies.
        recipe: How long to roll out.
        seed: Of the places where the cube appears.

    Returns:
        What it sent to the arm, without LeRobot's way back to the first posture.

    Raises:
        StepFailedError: The command failed, or sent nothing.
    """
    with make_twin(folder, recipe, seed) as twin:
        command = rollout_command(twin, folder, recipe)
        _announce(command)
        begins, ends = "Base strategy control loop started", "Duration limit reached"
        with ClockBar("rollout", recipe.rollout_s, begins, ends) as bar:
            run_command(command, folder.log(command), bar.read_line, bar.tick)
        if bar.began_s is None or bar.ended_s is None:
            raise StepFailedError(f"{command.name} ended before its time; see {folder.log(command)}")
        sent = twin.follower.goal_statistics(bar.began_s, bar.ended_s)
        if not sent.writes:
            raise StepFailedError(f"{command.name} sent no action to the arm; see {folder.log(command)}")
        return summarize_rollout(sent, recipe.fps, twin.task.touches)


def summarize_rollout(sent: GoalStatistics, wanted_hz: float, touches: int) -> RolloutSummary:
    """What the policy sent, for the table.

    Args:
        sent: Goals that were written while it drove.
        wanted_hz: Rate that was asked for.
        touches: Cubes touched meanwhile.
    """
    return RolloutSummary(
        goal_writes=sent.writes,
        ticks_written=sent.ticks_written,
        rate_hz=sent.rate_hz,
        wanted_hz=wanted_hz,
        longest_pause_s=sent.longest_pause_s,
        swing_deg={joint: (high - low) * 360 / TICKS_PER_TURN for joint, (low, high) in sent.spans_ticks.items()},
        out_of_range=sent.out_of_range,
        touches=touches,
    )


def _announce(command: LeRobotCommand) -> None:
    print(f"\n{command}\n", flush=True)
