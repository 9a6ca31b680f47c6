"""The arm of the simulated world in a robot's units, without servos and ports: what goes over the wire, computed.

Readings are rounded to ticks as servos report them, goals to ticks as the guard sends them. One control period is:
`read`, `send`, `advance`.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lerobot_vla_plugin.arms.calibration import JointCalibration, example_calibration
from lerobot_vla_plugin.arms.guard import ActionGuard, GuardConfig
from lerobot_vla_plugin.arms.guard_report import GuardReport
from lerobot_vla_plugin.arms.joints import TICKS_PER_TURN, JointConverter, joint_modes
from lerobot_vla_plugin.arms.robot_types import ServoFamily, device_type
from lerobot_vla_plugin.twin.arm_model import JOINTS
from lerobot_vla_plugin.twin.joint_map import JointMap
from lerobot_vla_plugin.twin.judge import Judge, Verdict
from lerobot_vla_plugin.twin.scenes import Layout
from lerobot_vla_plugin.twin.world import World
from lerobot_vla_plugin.twin.world_model import STEPS_PER_S

_LOOK_STEPS = 30  # the judge looks ten times a second or more often


class SimulatedArm:
    """The follower of a world, under a guard.

    Args:
        world: The world; `start` resets it.
        calibration: Joint -> calibration, of any LeRobot file; None takes the one that this package ships.
        use_degrees: LeRobot's option of that name: degrees, not percent; the gripper is in [0, 100] either way.
        limits: Limits of the guard.

    Attributes:
        world: As given.
        calibration: As given or shipped.
        converter: Between its ticks and its units.
        ticks: Between its ticks and the world's angles.
        guard: The guard of this episode; its report says what was changed.
        verdict: What has been done to the cubes in this episode.

    Raises:
        ValueError: A joint has no calibration.
    """

    guard: ActionGuard
    verdict: Verdict

    def __init__(
        self,
        world: World,
        calibration: Mapping[str, JointCalibration] | None = None,
        *,
        use_degrees: bool = True,
        limits: GuardConfig | None = None,
    ) -> None:
        self.world = world
        self.calibration = calibration or _shipped(world, "follower")
        self._servos = servos = device_type(f"{world.arm.name}_follower").servos
        self.converter = _converter(self.calibration, use_degrees, servos)
        jaw_limits_rad = world.joint_limits_rad[-1]
        self.ticks = JointMap(self.calibration, jaw_limits_rad, inverts_in_software=servos.inverts_in_software)
        joints = [self.calibration[joint] for joint in JOINTS]
        self._offsets_ticks = np.array([servos.homing_sign * joint.homing_offset for joint in joints])
        backwards = [bool(joint.drive_mode) and not servos.inverts_in_software for joint in joints]
        self._directions = np.where(backwards, -1, 1)
        self._limits = limits or GuardConfig()

    def start(self, layout: Layout, posture_rad: ArrayLike | None = None) -> None:
        """Start an episode; the guard starts anew, as after a pause.

        Args:
            layout: The scene.
            posture_rad: As for `World.reset`.
        """
        self.world.reset(layout, posture_rad)
        motors, ticks = self.world.motors, self.ticks
        # The encoders count what is there, and servos add their homing offset: it decides how ties are rounded.
        motors.settings = replace(
            motors.settings,
            ticks_per_rad=self._directions * ticks.ticks_per_rad,
            ticks_at_zero_rad=self._to_encoder(ticks.ticks_at_zero_rad),
        )
        self.guard = ActionGuard(self._limits, self.calibration, self.converter)
        self.guard.report = _Tallies()
        self._judge = Judge(layout)
        self.verdict = self._judge.look(self.world)

    def read(self) -> NDArray[np.float64]:
        """Where the arm is as LeRobot reads it, shape (6,), in robot units."""
        present_ticks = self._present_ticks()
        return np.array(list(self.converter.dict_to_units(present_ticks).values()))

    def send(self, action: ArrayLike) -> NDArray[np.float64]:
        """Send what the guard lets through.

        Args:
            action: Joint values, shape (6,), in robot units.

        Returns:
            The joint values of the ticks that were sent, of that shape; this is what LeRobot records.

        Raises:
            ValueError: The action has another shape, or a value is not finite; the last goals stand.
        """
        now_s = self.world.time_s
        if self.guard.needs_start(now_s):
            self.guard.start(self._present_ticks(), now_s)
        goals_ticks = self.guard.next_goals(_by_joint(action), now_s)
        self.world.motors.goal_rad = self._to_rad(np.array([goals_ticks[joint] for joint in JOINTS]))
        return np.array(list(self.converter.dict_to_units(goals_ticks).values()))

    def advance(self, steps: int) -> Verdict:
        """Let time pass; the judge watches.

        Args:
            steps: Steps of the world, of 1 / `STEPS_PER_S` seconds.

        Returns:
            What has been done up to now.
        """
        while steps > 0:
            self.world.step(min(steps, _LOOK_STEPS))
            self.verdict = self._judge.look(self.world)
            steps -= _LOOK_STEPS
        return self.verdict

    def _present_ticks(self) -> dict[str, int]:
        ticks = self._counted_ticks()
        if not self._servos.counts_turns:
            ticks = ticks % TICKS_PER_TURN
        return dict(zip(JOINTS, ticks.tolist(), strict=True))

    def _counted_ticks(self) -> NDArray[np.int64]:
        """Positions that servos would report if they counted on beyond a turn."""
        motors = self.world.motors
        encoder_ticks = motors.settings.ticks(motors.encoder_rad).astype(np.int64)
        return self._directions * encoder_ticks + self._offsets_ticks

    def _to_rad(self, goals_ticks: NDArray[np.int64]) -> NDArray[np.float64]:
        settings = self.world.motors.settings
        if not self._servos.counts_turns:
            goals_ticks = goals_ticks + self._counted_ticks() // TICKS_PER_TURN * TICKS_PER_TURN
        return (self._to_encoder(goals_ticks) - settings.ticks_at_zero_rad) / settings.ticks_per_rad

    def _to_encoder(self, positions_ticks: NDArray) -> NDArray:
        """Where the encoders stand at positions that servos report."""
        return self._directions * (positions_ticks - self._offsets_ticks)


class SimulatedLeader:
    """The leader that a person holds so that its follower goes somewhere.

    Args:
        arm: The follower.
        calibration: Joint -> calibration; None takes the leader's that this package ships.
        use_degrees: Unit in which LeRobot hands the leader's reading to the follower.
    """

    def __init__(
        self,
        arm: SimulatedArm,
        calibration: Mapping[str, JointCalibration] | None = None,
        *,
        use_degrees: bool = True,
    ) -> None:
        self._arm = arm
        servos = device_type(f"{arm.world.arm.name}_leader").servos
        self._converter = _converter(calibration or _shipped(arm.world, "leader"), use_degrees, servos)

    def read(self, goal_rad: ArrayLike) -> NDArray[np.float64]:
        """What LeRobot reads of a leader that stands, to the tick, where its follower shall go.

        Args:
            goal_rad: Where the person wants the follower, shape (6,), in [rad] of the world.

        Returns:
            An action, shape (6,), in robot units.
        """
        units = self._arm.converter.to_units(self._arm.ticks.to_exact_ticks(goal_rad))
        return self._converter.to_units(self._converter.to_ticks(units))


class _Tallies(GuardReport):
    """Counts, and logs nothing: who runs episodes faster than real time reads the counts."""

    def log(self, time_s: float) -> None:
        """Nothing.

        Args:
            time_s: Now, in [s].
        """


def steps_of_frame(fps: float) -> int:
    """Steps of the world from one frame to the next.

    Args:
        fps: Frames a second, in [Hz].

    Raises:
        ValueError: A frame is no whole number of steps, or so long that the guard takes it for a gap.
    """
    rates = [STEPS_PER_S // steps for steps in range(60, 0, -1) if STEPS_PER_S % steps == 0]
    if fps not in rates:
        raise ValueError(
            f"fps must be one of {rates}, which divide the world's {STEPS_PER_S} steps a second, got {fps}"
        )
    return round(STEPS_PER_S / fps)


def _by_joint(action: ArrayLike) -> dict[str, float]:
    values = np.asarray(action, dtype=np.float64)
    if values.shape != (len(JOINTS),):
        raise ValueError(f"expected an action of the joints {JOINTS}, got shape {values.shape}")
    return dict(zip(JOINTS, values.tolist(), strict=True))


def _shipped(world: World, role: str) -> dict[str, JointCalibration]:
    name = f"{world.arm.name}_{role}"
    return example_calibration(device_type(name).name, name)


def _converter(calibration: Mapping[str, JointCalibration], use_degrees: bool, servos: ServoFamily) -> JointConverter:
    modes = joint_modes(JOINTS, degrees=use_degrees)
    return JointConverter(calibration, modes, inverts_in_software=servos.inverts_in_software)
