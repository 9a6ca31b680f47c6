"""How time passes between an action and the next look: by the clock, or in steps of a twin's world."""

import time
from typing import Protocol

from lerobot.utils.robot_utils import precise_sleep

from lerobot_vla_plugin.envs.evaluated_arm import EvaluatedArm


class Pace(Protocol):
    """Lets time pass.

    Attributes:
        by_the_clock: Whether there is a rate to keep.
    """

    by_the_clock: bool

    def begin(self) -> None:
        """An attempt begins now."""
        ...

    def pass_period(self, arm: EvaluatedArm) -> None:
        """Let one period go by after an action was sent."""
        ...

    def seconds(self) -> float:
        """Time since the beginning of the attempt, in [s]."""
        ...


class RealTime:
    """A fixed rate. Who is late goes on at once and is not made to catch up, as in `lerobot-rollout`.

    Args:
        fps: Actions a second, in [Hz].
    """

    by_the_clock = True

    def __init__(self, fps: int) -> None:
        self._period_s = 1 / fps
        self._began_s = self._next_s = time.perf_counter()

    def begin(self) -> None:
        """An attempt begins now."""
        self._began_s = time.perf_counter()
        self._next_s = self._began_s + self._period_s

    def pass_period(self, arm: EvaluatedArm) -> None:
        """Sleep until the period is over.

        Args:
            arm: Not needed.
        """
        now_s = time.perf_counter()
        on_time = now_s < self._next_s
        precise_sleep(self._next_s - now_s)
        # From the plan where it could be kept, so that what a sleep takes too long does not add up.
        self._next_s = (self._next_s if on_time else now_s) + self._period_s

    def seconds(self) -> float:
        """Time since the beginning of the attempt, in [s]."""
        return time.perf_counter() - self._began_s
