"""A running twin as supervisor of its own scenes, and its time where it runs in lock-step."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lerobot_vla_plugin.envs.episode import Ending
from lerobot_vla_plugin.envs.evaluated_arm import EvaluatedArm
from lerobot_vla_plugin.envs.pace import Pace, RealTime
from lerobot_vla_plugin.envs.supervision import Attempt, Judgement, Supervisor
from lerobot_vla_plugin.twin.control import TwinControl
from lerobot_vla_plugin.twin.scenes import COLORS, TASKS

# In real time a picture of the scene before may still be under way; cameras of 10 Hz and more have a new one by then.
_SHOWN_S = 0.3


class TwinScene:
    """Lays a twin's scenes and takes its verdicts. An attempt is over when a cube has been taken, whichever it is.

    Args:
        control: Of the twin.
        task: One of its tasks.
        color: Cube that the instruction names; None for the seed's.
    """

    def __init__(self, control: TwinControl, task: str, color: str | None) -> None:
        self._control, self._task, self._color = control, task, color
        self._attempts = 0

    def prepare(self, arm: EvaluatedArm, seed: int | None) -> Attempt:
        """Lay a scene; the arm stands at its start at once.

        Args:
            arm: The arm, connected.
            seed: Of the scene; None counts the attempts.
        """
        seed = self._attempts if seed is None else seed
        self._attempts += 1
        scene = self._control.reset(self._task, seed, self._color)
        if self._control.facts.lock_step:
            await_pictures(arm, scene.step)
        else:
            time.sleep(_SHOWN_S)
        return Attempt(self._task, scene.instruction, scene.time_limit_s, seed, scene.color, scene.layout)

    def judge(self) -> Judgement:
        """The twin's verdict."""
        verdict = self._control.verdict()
        if verdict.taken is None:
            return Judgement()
        return Judgement(Ending.SUCCESS if verdict.success else Ending.FAILURE, verdict.taken)

    def close(self) -> None:
        """Let go of the twin, which goes on."""
        self._control.close()


class LockStep:
    """Time passes only here, in steps of the twin's world, and nothing sleeps.

    Args:
        control: Of the twin.
        fps: Actions a simulated second, in [Hz].

    Raises:
        ValueError: A period is no whole number of the world's steps.
    """

    by_the_clock = False

    def __init__(self, control: TwinControl, fps: int) -> None:
        self._control = control
        self._steps, rest = divmod(control.facts.steps_per_s, fps)
        if rest:
            rates = [rate for rate in range(1, 61) if control.facts.steps_per_s % rate == 0]
            raise ValueError(
                f"in lock-step the twin makes {control.facts.steps_per_s} steps a second, which --env.fps={fps} does "
                f"not divide; take one of {rates}"
            )
        self._began = control.step

    def begin(self) -> None:
        """An attempt begins now."""
        self._began = self._control.step

    def pass_period(self, arm: EvaluatedArm) -> None:
        """Let the world run, and look at nothing older.

        Args:
            arm: The arm, to which an action was sent.
        """
        # Nobody answers a write of goals: a reply to anything that is sent behind it says that it has arrived.
        arm.robot.bus.sync_read("Present_Position")
        await_pictures(arm, self._control.advance(self._steps))

    def seconds(self) -> float:
        """Simulated time since the beginning of the attempt, in [s]."""
        return (self._control.step - self._began) / self._control.facts.steps_per_s

    def clock(self) -> float:
        """Simulated time since the twin was started, in [s]."""
        return self._control.step / self._control.facts.steps_per_s


def await_pictures(arm: EvaluatedArm, step: int) -> None:
    """Let the next look wait for the pictures of a step.

    Args:
        arm: The arm.
        step: The step.
    """
    for camera in _cameras(arm).values():
        camera.await_step(step)


def open_twin(directory: Path, task: str, color: str | None, arm: EvaluatedArm, fps: int) -> tuple[Supervisor, Pace]:
    """Take control of a running twin.

    Args:
        directory: The twin's folder.
        task: One of its tasks.
        color: Cube that the instruction names; None for the seed's.
        arm: The arm, which must be the twin's follower; in lock-step it gets the twin's time.
        fps: Actions a second, in [Hz].

    Raises:
        ValueError: There is no such task or color; or the arm, its cameras or the rate are not for this twin.
        ConnectionError: No twin with tasks runs there.
        TwinBusyError: Another evaluation has it.
    """
    for option, value, known in (("scene", task, TASKS), ("color", color, (None, *COLORS))):
        if value not in known:
            raise ValueError(f"--env.{option}={value} is none of {[name for name in known if name]}")
    control = TwinControl(directory)
    try:
        _check_port(arm, control.facts.follower_port)
        return TwinScene(control, task, color), _pace(control, arm, fps)
    except BaseException:
        control.close()
        raise


def _pace(control: TwinControl, arm: EvaluatedArm, fps: int) -> Pace:
    if not control.facts.lock_step:
        return RealTime(fps)
    unfit = [name for name, camera in _cameras(arm).items() if not hasattr(camera, "await_step")]
    if unfit:
        raise ValueError(
            f"this twin runs in lock-step, and the cameras {unfit} cannot wait for a step: give them the type "
            "step_zmq in --env.robot.cameras, as `lerobot-vla twin` prints them"
        )
    lock_step = LockStep(control, fps)
    arm.robot.clock = lock_step.clock
    return lock_step


def _check_port(arm: EvaluatedArm, follower: Path) -> None:
    port = getattr(arm.robot.config, "port", None)
    if port is None or os.path.realpath(port) != os.path.realpath(follower):
        raise ValueError(
            f"--env.twin judges its own follower, at {follower}, and --env.robot.port is {port}: give that port, or "
            "leave --env.twin out for a real arm"
        )


def _cameras(arm: EvaluatedArm) -> Mapping[str, Any]:
    return getattr(arm.robot, "cameras", {})
