"""Who sets up an attempt and judges it: a person at a real arm, or a twin that knows its scene."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from lerobot_vla_plugin.envs.episode import Ending
from lerobot_vla_plugin.envs.evaluated_arm import EvaluatedArm
from lerobot_vla_plugin.envs.keys import Keys

_LISTEN_S = 0.1
_ENDINGS = {"s": Ending.SUCCESS, "f": Ending.FAILURE, "x": Ending.DISCARDED}
_STOP = "q"


@dataclass(frozen=True, slots=True)
class Attempt:
    """What is to be done, and in which scene.

    Attributes:
        task: Name of the kind of scene.
        instruction: What the policy is told.
        time_limit_s: When it has failed, in [s].
        seed: Of the scene.
        color: Of the cube that the instruction names.
        layout: Where things stand.
    """

    task: str
    instruction: str
    time_limit_s: float
    seed: int | None = None
    color: str | None = None
    layout: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What is known of an attempt now.

    Attributes:
        ending: Why it is over; None while it goes on.
        taken: Color of the cube that was taken first.
    """

    ending: Ending | None = None
    taken: str | None = None


class Supervisor(Protocol):
    """Sets attempts up and judges them."""

    def prepare(self, arm: EvaluatedArm, seed: int | None) -> Attempt:
        """Bring arm and scene to where an attempt begins; returns when it may begin.

        Args:
            arm: The arm, connected.
            seed: Of the scene.
        """
        ...

    def judge(self) -> Judgement:
        """Look at the attempt, without waiting."""
        ...

    def close(self) -> None:
        """Let go of everything."""
        ...


class Person:
    """Moves the arm to its start pose, and listens to the person for the rest.

    Args:
        task: What the policy is told.
        time_limit_s: When an attempt has failed, in [s].
        start_pose: Joint -> where an attempt begins, in the arm's units.
        start_speed: How fast the arm moves there, in [units/s].
        fps: Commands a second, in [Hz].
        keys: The person's keyboard.

    Raises:
        ValueError: There is no task, or the speed is not positive.
    """

    def __init__(
        self,
        task: str,
        time_limit_s: float,
        start_pose: Mapping[str, float],
        start_speed: float,
        fps: int,
        keys: Keys,
    ) -> None:
        self._task, self._time_limit_s = task, time_limit_s
        self._start_pose, self._start_speed, self._fps = start_pose, start_speed, fps
        self._keys = keys
        self._home: np.ndarray | None = None
        self._attempts = 0

    def prepare(self, arm: EvaluatedArm, seed: int | None) -> Attempt:
        """Move to the start pose, and wait for the person.

        Args:
            arm: The arm, connected.
            seed: Only noted: who sets the scene up may go by it.
        """
        self._keys.open()
        if self._home is None:
            named = [self._start_pose.get(key.removesuffix(".pos"), np.nan) for key in arm.action_keys]
            self._home = np.where(np.isnan(named), arm.joints(), named)
        arm.move_to(self._home, self._start_speed, self._fps)
        self._attempts += 1
        tqdm.write(
            f"\nAttempt {self._attempts}: {self._task!r}. Set the scene up; Enter or space starts.\n"
            "While the arm moves: s success, f failure, x does not count, q stops the evaluation."
        )
        self._wait_for_start(arm)
        return Attempt(self._task, self._task, self._time_limit_s, seed)

    def judge(self) -> Judgement:
        """What the person has said.

        Raises:
            SystemExit: The person has stopped the evaluation.
        """
        key = self._key()
        return Judgement(_ENDINGS.get(key) if key else None)

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._keys.close()

    def _wait_for_start(self, arm: EvaluatedArm) -> None:
        self._keys.forget()
        while self._key() not in ("\n", "\r", " "):
            arm.joints()  # finds a lost cable, and tells the watchdog of a servo that somebody is there
            time.sleep(_LISTEN_S)
        self._keys.forget()

    def _key(self) -> str | None:
        key = self._keys.pressed()
        if key == _STOP:
            tqdm.write("Stopped by q.")
            raise SystemExit(0)  # LeRobot closes the environment, which switches the torque off
        return key
