"""The hand that leads the arm: it follows its plan and makes up for what it knows or sees the arm to lack.

A follower sags under gravity, lags behind a moving goal, and stops short of it in its friction, each by the torque
over the gain. A person at the leader sees that and leads by as much.
"""

import numpy as np
from numpy.typing import NDArray

from lerobot_vla_plugin.twin.grasp_plan import GraspPlan, plan_waypoints
from lerobot_vla_plugin.twin.judge import Judge, Verdict
from lerobot_vla_plugin.twin.kinematics import Kinematics
from lerobot_vla_plugin.twin.motors import BACK_EMF_NM_S, DAMPING_NM_S, FRICTION_NM, GAIN_NM_RAD
from lerobot_vla_plugin.twin.world import World
from lerobot_vla_plugin.twin.world_model import STEPS_PER_S

HAND_HZ = 30
SETTLE_S = 0.4  # after the plan's end, so that a released cube comes to rest
_STILL_RAD_S = 0.08  # slower than this, what is seen to lack is an error and not a lag
_CORRECTION_SHARE = 0.08  # of what is seen to lack, added to every goal at `HAND_HZ`
_LARGEST_CORRECTION_RAD = 0.06
_FRICTION_SPEED_RAD_S = 0.05
_ARM = np.array([1.0, 1.0, 1.0, 1.0, 1.0, 0.0])  # the jaw is to be kept from where it is told to go: that is the grip


class Hand:
    """Gives goals at a steady rate.

    Args:
        plan: The motion.
        kinematics: The arm, for its weight.
        rate_hz: How often it is asked for a goal, in [Hz]; each goal stands until the next one.
    """

    def __init__(self, plan: GraspPlan, kinematics: Kinematics, rate_hz: float = HAND_HZ) -> None:
        self._plan, self._kinematics = plan, kinematics
        self._correction_share = 1 - (1 - _CORRECTION_SHARE) ** (HAND_HZ / rate_hz)  # the same share a second
        self._correction_rad = np.zeros(len(_ARM))

    def goal_rad(self, time_s: float, joints_rad: NDArray[np.float64]) -> NDArray[np.float64]:
        """Where to send the follower; to be asked at the hand's rate.

        Args:
            time_s: Since the beginning of the plan, in [s].
            joints_rad: Posture that the follower is seen in, shape (6,), in [rad].

        Returns:
            Goals, shape (6,), in [rad].
        """
        wanted_rad, speed_rad_s = self._plan.posture_rad(time_s), self._plan.speed_rad_s(time_s)
        lacking_rad = (wanted_rad - joints_rad) * (np.abs(speed_rad_s) < _STILL_RAD_S)
        correction_rad = self._correction_rad + self._correction_share * lacking_rad
        self._correction_rad = np.clip(correction_rad, -_LARGEST_CORRECTION_RAD, _LARGEST_CORRECTION_RAD)
        friction_nm = FRICTION_NM * np.tanh(speed_rad_s / _FRICTION_SPEED_RAD_S)
        drag_nm = (BACK_EMF_NM_S + DAMPING_NM_S) * speed_rad_s
        lead_rad = (self._kinematics.gravity_nm(wanted_rad) + drag_nm + friction_nm) / GAIN_NM_RAD
        return wanted_rad + _ARM * (lead_rad + self._correction_rad)


def perform(world: World, kinematics: Kinematics, rng: np.random.Generator, color: str | None = None) -> Verdict:
    """Do a world's task from its beginning to its end.

    Args:
        world: Just reset; its motors are told where to go.
        kinematics: The arm.
        rng: Draws the little differences between one attempt and the next.
        color: The cube to do it to; None takes the one that the instruction names.

    Returns:
        The judge's verdict at the end.

    Raises:
        UnreachableError: The arm cannot reach a place of the scene.
    """
    layout, low_rad, high_rad = world.layout, *world.joint_limits_rad.T
    plan = GraspPlan(world.joints_rad, plan_waypoints(layout, color or layout.color, rng), kinematics)
    hand, judge = Hand(plan, kinematics), Judge(layout)
    verdict = judge.look(world)
    while world.time_s < plan.duration_s + SETTLE_S:
        world.motors.goal_rad = np.clip(hand.goal_rad(world.time_s, world.joints_rad), low_rad, high_rad)
        world.step(STEPS_PER_S // HAND_HZ)
        verdict = judge.look(world)
    return verdict
