"""Between a world and the servos that are the motors of its arm: registers become torques, angles become ticks."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from lerobot_vla_plugin.arms.calibration import JointCalibration
from lerobot_vla_plugin.twin.arm_model import JOINTS
from lerobot_vla_plugin.twin.bus import ServoBus
from lerobot_vla_plugin.twin.driven import Drive, Driven
from lerobot_vla_plugin.twin.joint_map import JointMap
from lerobot_vla_plugin.twin.scenes import Layout
from lerobot_vla_plugin.twin.world import World


class DrivenArm:
    """The arm of a world as its servos move it.

    Args:
        world: The world.
        bus: Bus of the arm: a `Driven` servo for every joint.
        calibration: Joint -> calibration: what a tick of these servos means.
        inverts_in_software: As in `JointConverter`.

    Attributes:
        to_ticks: Angles of the model -> positions, as `JointMap.to_exact_ticks`.
    """

    def __init__(
        self, world: World, bus: ServoBus, calibration: Mapping[str, JointCalibration], *, inverts_in_software: bool
    ) -> None:
        joint_map = JointMap(calibration, world.joint_limits_rad[-1], inverts_in_software=inverts_in_software)
        self.to_ticks = joint_map.to_exact_ticks
        # The encoders count what is there; which position that is, the servos work out, from their homing offset say.
        at_zero = joint_map.ticks_at_zero_rad
        with bus.servos() as servos:
            encoders = [servos[joint].encoder_at for joint in JOINTS]
        directions = [encoder_at(1) - encoder_at(0) for encoder_at in encoders]
        self._settings = replace(
            world.motors.settings,
            ticks_per_rad=joint_map.ticks_per_rad * directions,
            ticks_at_zero_rad=np.array([at(zero) for at, zero in zip(encoders, at_zero.tolist(), strict=True)]),
        )
        self._world, self._bus = world, bus
        self._drives: list[Drive] = []
        self._stuck: list[bool] = []

    def reset(self, layout: Layout, posture_rad: ArrayLike | None = None) -> None:
        """Start a scene; every servo's goal is where it stands then, its torque as it was.

        Args:
            layout: The scene.
            posture_rad: As for `World.reset`.
        """
        with self._bus.servos() as servos:
            self._world.reset(layout, posture_rad)
            self._drives, self._stuck = [], []
            self._report(servos)
            for servo in servos.values():
                servo.aim()

    def step(self, count: int) -> None:
        """Let the world run; what the servos are told meanwhile counts afterwards.

        Args:
            count: Steps.
        """
        with self._bus.servos() as servos:
            self._obey(servos)
            self._world.step(count)
            self._report(servos)

    def _obey(self, servos: Mapping[str, Driven]) -> None:
        motors, made = self._world.motors, self._world.arm.motors
        drives = [servos[joint].drive() for joint in JOINTS]
        if drives != self._drives:
            self._drives = drives
            motors.settings = self._settings = replace(
                self._settings,
                gain_nm_rad=made.p_nm_rad * np.array([drive.p_gain for drive in drives]),
                damping_nm_s=made.d_nm_s * np.array([drive.d_gain for drive in drives]),
                largest_nm=made.stall_nm * np.array([drive.largest_duty for drive in drives]),
                dead_zone_ticks=np.array([drive.dead_zone_ticks for drive in drives], dtype=np.float64),
            )
            motors.torque_enabled = motors.settings.largest_nm > 0
        motors.goal_rad = self._goals_rad(servos)
        stuck = [servos[joint].stuck for joint in JOINTS]
        if stuck != self._stuck:
            self._world.jam(stuck)
            self._stuck = stuck

    def _goals_rad(self, servos: Mapping[str, Driven]):
        settings = self._settings
        stands = settings.ticks(self._world.motors.encoder_rad).astype(int).tolist()
        goals = [
            servos[joint].unfold(at, drive.goal_ticks)
            for joint, at, drive in zip(JOINTS, stands, self._drives, strict=True)
        ]
        return (np.array(goals) - settings.ticks_at_zero_rad) / settings.ticks_per_rad

    def _report(self, servos: Mapping[str, Driven]) -> None:
        world, settings = self._world, self._settings
        stands = settings.ticks(world.motors.encoder_rad).astype(int).tolist()
        speeds = (settings.ticks_per_rad * world.joint_speeds_rad_s).tolist()
        duties = (np.sign(settings.ticks_per_rad) * world.torques_nm / world.arm.motors.stall_nm).tolist()
        for joint, *state in zip(JOINTS, stands, speeds, duties, strict=True):
            servos[joint].turn(*state)
