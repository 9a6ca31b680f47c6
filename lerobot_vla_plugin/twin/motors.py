"""The motors of an SO-101 follower: six STS3215 at 7.4 V, from what they are told to the torque at the joint.

A motor sees its own encoder, in whole ticks; the link hangs behind it with some play. Its duty is proportional to the
error, damped by the speed. The back-EMF, which takes torque away as it turns, is not here but in MuJoCo's joint
damping, where the integrator handles it implicitly.
"""

from dataclasses import dataclass, field
from functools import partial

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


def _six(value: float) -> NDArray[np.float64]:
    return np.full(len(JOINTS), value)


@dataclass(frozen=True, slots=True)
class MotorSettings:
    """What the motors are set to, each of shape (6,); the default is as LeRobot sets them, with angles for ticks.

    Attributes:
        gain_nm_rad: Torque per error, in [N m/rad].
        damping_nm_s: Torque that a speed takes away, in [N m s/rad].
        largest_nm: Limit of the torque either way, in [N m].
        dead_zone_ticks: Errors that are ignored, in [ticks].
        ticks_per_rad: What the encoder counts a radian, in [ticks/rad]; negative where the motor turns the other way.
        ticks_at_zero_rad: Where the encoder stands at an angle of 0, in [ticks].
    """

    gain_nm_rad: NDArray[np.float64] = field(default_factory=partial(_six, GAIN_NM_RAD))
    damping_nm_s: NDArray[np.float64] = field(default_factory=partial(_six, DAMPING_NM_S))
    largest_nm: NDArray[np.float64] = field(default_factory=lambda: STALL_NM * LARGEST_DUTY)
    dead_zone_ticks: NDArray[np.float64] = field(default_factory=partial(_six, DEAD_ZONE_TICKS))
    ticks_per_rad: NDArray[np.float64] = field(default_factory=partial(_six, 1 / TICK_RAD))
    ticks_at_zero_rad: NDArray[np.float64] = field(default_factory=partial(_six, 0.0))

    def ticks(self, angles_rad: NDArray[np.float64]) -> NDArray[np.float64]:
        """Whole ticks that the encoders count.

        Args:
            angles_rad: Joint angles, shape (6,), in [rad].
        """
        return np.rint(self.ticks_at_zero_rad + self.ticks_per_rad * angles_rad)


class Motors:
    """Goals, torque switches and encoders of the six motors.

    Attributes:
        goal_rad: Where each is told to go, shape (6,), in [rad].
        torque_enabled: Which of them drive, shape (6,).
        encoder_rad: Where each encoder stands, shape (6,), in [rad]; within the play of the link.
        settings: Gains, limits and what a tick means; replaced as a whole.
    """

    def __init__(self) -> None:
        self.settings = MotorSettings()
        self.reset(np.zeros(len(JOINTS)))

    def reset(self, link_rad: ArrayLike) -> None:
        """Switch on in a posture, with the goal there and the play in the middle; the settings stay.

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
        settings = self.settings
        error_rad = seen_error(self.goal_rad, self.encoder_rad, settings)
        wanted_nm = settings.gain_nm_rad * error_rad - settings.damping_nm_s * speed_rad_s
        largest_nm = settings.largest_nm * self.torque_enabled
        return np.minimum(np.maximum(wanted_nm, -largest_nm), largest_nm)


def seen_error(
    goal_rad: NDArray[np.float64], encoder_rad: NDArray[np.float64], settings: MotorSettings
) -> NDArray[np.float64]:
    """Error that a servo acts on: in whole ticks, and none inside the dead zone.

    Args:
        goal_rad: Where to, shape (6,), in [rad].
        encoder_rad: Where the encoder stands, shape (6,), in [rad].
        settings: What a tick is, and the dead zone.

    Returns:
        Errors, shape (6,), in [rad].
    """
    error_ticks = settings.ticks(goal_rad) - settings.ticks(encoder_rad)
    return np.where(np.abs(error_ticks) <= settings.dead_zone_ticks, 0.0, error_ticks / settings.ticks_per_rad)


def follow_with_play(encoder_rad: NDArray[np.float64], link_rad: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where an encoder stands once its link has moved: it stays until the play is used up.

    Args:
        encoder_rad: Where it stood, in [rad].
        link_rad: Where the link is now, in [rad], same shape.
    """
    return np.minimum(np.maximum(encoder_rad, link_rad - PLAY_RAD), link_rad + PLAY_RAD)
