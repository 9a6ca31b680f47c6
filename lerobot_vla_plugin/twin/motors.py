"""The motors of an SO-101 follower: six STS3215 at 7.4 V, from what they are told to the torque at the joint.

A motor sees its own encoder, in whole ticks; the link hangs behind it with some play. Its duty is proportional to the
error, damped by the speed. The back-EMF, which takes torque away as it turns, is not here but in MuJoCo's joint
damping, where the integrator handles it implicitly.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lerobot_vla_plugin.arms.joints import TICKS_PER_TURN
from lerobot_vla_plugin.twin.arm_model import JOINTS

TICK_RAD = 2 * np.pi / TICKS_PER_TURN
STALL_NM = 1.9
NO_LOAD_RAD_S = 5.45  # 52 turns a minute
BACK_EMF_NM_S = STALL_NM / NO_LOAD_RAD_S
GAIN_NM_RAD = 5.05  # LeRobot's P_Coefficient of 16: full duty 0.376 rad away from the goal
DAMPING_NM_S = 0.3  # LeRobot's D_Coefficient of 32
FRICTION_NM = 0.052
ARMATURE_KG_M2 = 0.028  # inertia of rotor and gears, felt at the joint
DEAD_ZONE_TICKS = 1  # the registers CW_Dead_Zone and CCW_Dead_Zone
PLAY_RAD = np.deg2rad(0.25)  # either way; half a degree from stop to stop
LARGEST_DUTY = np.array([0.5 if joint == "gripper" else 1.0 for joint in JOINTS])  # LeRobot's Max_Torque_Limit


class Motors:
    """Goals, torque switches and encoders of the six motors.

    Attributes:
        goal_rad: Where each is told to go, shape (6,), in [rad].
        torque_enabled: Which of them drive, shape (6,).
        encoder_rad: Where each encoder stands, shape (6,), in [rad]; within the play of the link.
    """

    def __init__(self) -> None:
        self.reset(np.zeros(len(JOINTS)))

    def reset(self, link_rad: ArrayLike) -> None:
        """Switch on in a posture, with the goal there and the play in the middle.

        Args:
            link_rad: Joint angles, shape (6,), in [rad].
        """
        self.encoder_rad: NDArray[np.float64] = np.array(link_rad, dtype=np.float64)
        self.goal_rad: NDArray[np.float64] = self.encoder_rad.copy()
        self.torque_enabled: NDArray[np.bool_] = np.ones(len(JOINTS), dtype=np.bool_)

    def follow(self, link_rad: NDArray[np.float64]) -> None:
        """Let the encoders follow their links.

        Args:
            link_rad: Joint angles, shape (6,), in [rad].
        """
        self.encoder_rad = follow_with_play(self.encoder_rad, link_rad)

    def torque_nm(self, speed_rad_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """What the motors give now, before friction and back-EMF.

        Args:
            speed_rad_s: Joint speeds, shape (6,), in [rad/s].

        Returns:
            Torques, shape (6,), in [N m].
        """
        wanted_nm = GAIN_NM_RAD * seen_error(self.goal_rad, self.encoder_rad) - DAMPING_NM_S * speed_rad_s
        largest_nm = STALL_NM * LARGEST_DUTY * self.torque_enabled
        return np.minimum(np.maximum(wanted_nm, -largest_nm), largest_nm)


def seen_error(goal_rad: NDArray[np.float64], encoder_rad: NDArray[np.float64]) -> NDArray[np.float64]:
    """Error that a servo acts on: in whole ticks, and none inside the dead zone.

    Args:
        goal_rad: Where to, in [rad].
        encoder_rad: Where the encoder stands, in [rad], same shape.

    Returns:
        Errors of that shape, in [rad].
    """
    error_ticks = np.rint(goal_rad / TICK_RAD) - np.rint(encoder_rad / TICK_RAD)
    return np.where(np.abs(error_ticks) <= DEAD_ZONE_TICKS, 0.0, error_ticks * TICK_RAD)


def follow_with_play(encoder_rad: NDArray[np.float64], link_rad: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where an encoder stands once its link has moved: it stays until the play is used up.

    Args:
        encoder_rad: Where it stood, in [rad].
        link_rad: Where the link is now, in [rad], same shape.
    """
    return np.minimum(np.maximum(encoder_rad, link_rad - PLAY_RAD), link_rad + PLAY_RAD)
