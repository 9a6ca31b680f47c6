"""The hand that leads the arm: it follows its plan and makes up for what it knows or sees the arm to lack.

A follower sags under gravity, lags behind a moving goal, and stops short of it in its friction, each by the torque
over the gain. A person at the leader sees that and leads by as much.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lerobot_vla_plugin.twin.grasp_plan import GraspPlan, plan_waypoints
from lerobot_vla_plugin.twin.judge import Judge, Verdict
from lerobot_vla_plugin.twin.kinematics import Kinematics
from lerobot_vla_plugin.twin.world import World
from lerobot_vla_plugin.twin.world_model import STEPS_PER_S

HAND_HZ = 30
SETTLE_S = 0.4  # after the plan's end, so that a released cube comes to rest
_STILL_RAD_S = 0.08  # slower than this, what is seen to lack is an error and not a lag
_CORRECTION_SHARE = 0.08  # of what is seen to lack, added to the goals every 1 / `HAND_HZ` seconds
_LARGEST_CORRECTION_RAD = 0.06
_FRICTION_SPEED_RAD_S = 0.05
_ARM = np.array([1.0, 1.0, 1.0, 1.0, 1.0, 0.0])  # the jaw is to be kept from where it is told to go: that is the grip


class Motion(Protocol):
    """What a hand follows: a posture and its speed at every moment."""

    def posture_rad(self, time_s: float) -> NDArray[np.float64]: ...
    def speed_rad_s(self, time_s: float) -> NDArray[np.float64]: ...


@dataclass(frozen=True, slots=True)
class Rest:
    """No motion: a posture to be held.

    Attributes:
        held_rad: The posture, shape (6,), in [rad].
    """

    held_rad: NDArray[np.float64]

    def posture_rad(self, time_s: float) -> NDArray[np.float64]:
        """That posture, at any moment."""
        return self.held_rad

    def speed_rad_s(self, time_s: float) -> NDArray[np.float64]:
        """None, shape (6,), in [rad/s]."""
        return np.zeros_like(self.held_rad)


class Hand:
    """Gives goals, at any rate.

    Args:
        plan: The motion.
        kinematics: The arm, for its weight and its motors.
    """

    def __init__(self, plan: Motion, kinematics: Kinematics) -> None:
        self._plan, self._kinematics = plan, kinematics
        self._correction_rad = np.zeros(len(_ARM))
        self._time_s = 0.0

    def goal_rad(self, time_s: float, joints_rad: NDArray[np.float64]) -> NDArray[np.float64]:
        """Where to send the follower.

        Args:
            time_s: Since the beginning of the plan, in [s]; must not run backwards.
            joints_rad: Posture that the follower is seen in, shape (6,), in [rad].

        Returns:
            Goals, shape (6,), in [rad].
        """
        wanted_rad, speed_rad_s = self._plan.posture_rad(time_s), self._plan.speed_rad_s(time_s)
        lacking_rad = (wanted_rad - joints_rad) * (np.abs(speed_rad_s) < _STILL_RAD_S)
        share = 1 - (1 - _CORRECTION_SHARE) ** (HAND_HZ * (time_s - self._time_s))
        self._time_s = time_s
        correction_rad = self._correction_rad + share * lacking_rad
        self._correction_rad = np.clip(correction_rad, -_LARGEST_CORRECTION_RAD, _LARGEST_CORRECTION_RAD)
        motors = self._kinematics.arm.motors
        friction_nm = motors.friction_nm * np.tanh(speed_rad_s / _FRICTION_SPEED_RAD_S)
        drag_nm = (motors.back_emf_nm_s + motors.damping_nm_s) * speed_rad_s
        lead_rad = (self._kinematics.gravity_nm(wanted_rad) + drag_nm + friction_nm) / motors.gain_nm_rad
        return wanted_rad + _ARM * (lead_rad + self._correction_rad)


class Attempt:
    """The person's attempt at a scene, from the posture of the arm when it begins.

    Args:
        world: The scene, just laid.
        kinematics: The arm.
        rng: Draws the little differences between one attempt and the next.
        color: The cube to do it to; None takes the one that the instruction names.

    Attributes:
        duration_s: When all is done and at rest, in [s].

    Raises:
        UnreachableError: The arm cannot reach a place of the scene.
    """

    def __init__(
        self, world: World, kinematics: Kinematics, rng: np.random.Generator, color: str | None = None
    ) -> None:
        layout = world.layout
        waypoints = plan_waypoints(layout, color or layout.color, rng, kinematics.arm)
        plan = GraspPlan(world.joints_rad, waypoints, kinematics)
        self.duration_s = plan.duration_s + SETTLE_S
        self._hand, self._limits_rad = Hand(plan, kinematics), world.joint_limits_rad.T

    def goal_rad(self, time_s: float, joints_rad: NDArray[np.float64]) -> NDArray[np.float64]:
        """Where to send the follower, as `Hand.goal_rad`, but inside the joints' ranges."""
        return np.clip(self._hand.goal_rad(time_s, joints_rad), *self._limits_rad)


def perform(
    world: World, kinematics: Kinematics, rng: np.random.Generator, color: str | None = None, *, rate_hz: int = HAND_HZ
) -> Verdict:
    """Do a world's task from its beginning to its end.

    Args:
        world: Just reset; its motors are told where to go.
        kinematics: The arm.
        rng: As for `Attempt`.
        color: As for `Attempt`.
        rate_hz: How often the motors are told, in [Hz]; divides `STEPS_PER_S`.

    Returns:
        The judge's verdict at the end.

    Raises:
        UnreachableError: The arm cannot reach a place of the scene.
    """
    attempt, judge = Attempt(world, kinematics, rng, color), Judge(world.layout)
    verdict = judge.look(world)
    while world.time_s < attempt.duration_s:
        world.motors.goal_rad = attempt.goal_rad(world.time_s, world.joints_rad)
        world.step(STEPS_PER_S // rate_hz)
        verdict = judge.look(world)
    return verdict
