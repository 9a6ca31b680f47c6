"""The motors of an arm, from what they are told to the torque at the joint.

A motor sees its own encoder, in whole ticks; the link hangs behind it with some play. Its duty is proportional to the
error, damped by the speed. The back-EMF, which takes torque away as it turns, is not here but in MuJoCo's joint
damping, where the integrator handles it implicitly.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lerobot_vla_plugin.arms.joints import TICKS_PER_TURN

TICK_RAD = 2 * np.pi / TICKS_PER_TURN
PLAY_RAD = np.deg2rad(0.25)  # either way; half a degree from stop to stop


@dataclass(frozen=True)
class ArmMotors:
    """What the motors of an arm are made for and what LeRobot sets them to, each of shape (6,).

    Attributes:
        stall_nm: Torque at full duty and standstill, in [N m].
        no_load_rad_s: Speed at full duty without load, in [rad/s].
        p_nm_rad: Torque per error and unit of the servo's P gain, in [N m/rad].
        d_nm_s: Torque that a speed takes away, per unit of the servo's D gain, in [N m s/rad].
        p_gain: LeRobot's P gain, as in the servo's register.
        d_gain: LeRobot's D gain, likewise.
        largest_duty: LeRobot's limit of the duty, in [0, 1].
        dead_zone_ticks: Errors that the servos ignore, in [ticks].
        friction_nm: Torque that dry friction takes away, in [N m].
        armature_kg_m2: Inertia of rotor and gears, felt at the joint, in [kg m^2].
    """

    stall_nm: NDArray[np.float64]
    no_load_rad_s: NDArray[np.float64]
    p_nm_rad: NDArray[np.float64]
    d_nm_s: NDArray[np.float64]
    p_gain: NDArray[np.float64]
    d_gain: NDArray[np.float64]
    largest_duty: NDArray[np.float64]
    dead_zone_ticks: NDArray[np.float64]
    friction_nm: NDArray[np.float64]
    armature_kg_m2: NDArray[np.float64]

    @property
    def gain_nm_rad(self) -> NDArray[np.float64]:
        """Torque per error at LeRobot's gain, shape (6,), in [N m/rad]."""
        return self.p_nm_rad * self.p_gain

    @property
    def damping_nm_s(self) -> NDArray[np.float64]:
        """Torque that a speed takes away at LeRobot's gain, shape (6,), in [N m s/rad]."""
        return self.d_nm_s * self.d_gain

    @property
    def back_emf_nm_s(self) -> NDArray[np.float64]:
        """Torque that a speed takes away by itself, shape (6,), in [N m s/rad]."""
        return self.stall_nm / self.no_load_rad_s

    def settings(self) -> "MotorSettings":
        """What LeRobot sets them to, with angles for ticks."""
        return MotorSettings(
            gain_nm_rad=self.gain_nm_rad,
            damping_nm_s=self.damping_nm_s,
            largest_nm=self.stall_nm * self.largest_duty,
            dead_zone_ticks=self.dead_zone_ticks,
            ticks_per_rad=np.full_like(self.stall_nm, 1 / TICK_RAD),
            ticks_at_zero_rad=np.zeros_like(self.stall_nm),
        )


@dataclass(frozen=True, slots=True)
class MotorSettings:
    """What the motors are set to, each of shape (6,).

    Attributes:
        gain_nm_rad: Torque per error, in [N m/rad].
        damping_nm_s: Torque that a speed takes away, in [N m s/rad].
        largest_nm: Limit of the torque either way, in [N m].
        dead_zone_ticks: Errors that are ignored, in [ticks].
        ticks_per_rad: What the encoder counts a radian, in [ticks/rad]; negative where the motor turns the other way.
        ticks_at_zero_rad: Where the encoder stands at an angle of 0, in [ticks].
    """

    gain_nm_rad: NDArray[np.float64]
    damping_nm_s: NDArray[np.float64]
    largest_nm: NDArray[np.float64]
    dead_zone_ticks: NDArray[np.float64]
    ticks_per_rad: NDArray[np.float64]
    ticks_at_zero_rad: NDArray[np.float64]

    def ticks(self, angles_rad: NDArray[np.float64]) -> NDArray[np.float64]:
        """Whole ticks that the encoders count.

        Args:
            angles_rad: Joint angles, shape (6,), in [rad].
        """
        return np.rint(self.ticks_at_zero_rad + self.ticks_per_rad * angles_rad)


class Motors:
    """Goals, torque switches and encoders of the six motors.

    Args:
        motors: What they are made for, and set to at first.

    Attributes:
        goal_rad: Where each is told to go, shape (6,), in [rad].
        torque_enabled: Which of them drive, shape (6,).
        encoder_rad: Where each encoder stands, shape (6,), in [rad]; within the play of the link.
        settings: Gains, limits and what a tick means; replaced as a whole.
    """

    def __init__(self, motors: ArmMotors) -> None:
        self.settings = motors.settings()
        self.reset(np.zeros_like(motors.stall_nm))

    def reset(self, link_rad: ArrayLike) -> None:
        """Switch on in a posture, with the goal there and the play in the middle; the settings stay.

        Args:
            link_rad: Joint angles, shape (6,), in [rad].
        """
        self.encoder_rad: NDArray[np.float64] = np.array(link_rad, dtype=np.float64)
        self.goal_rad: NDArray[np.float64] = self.encoder_rad.copy()
        self.torque_enabled: NDArray[np.bool_] = np.ones(self.goal_rad.shape, dtype=np.bool_)

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
