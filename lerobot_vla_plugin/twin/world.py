"""The world in motion: reset it to a layout, tell the motors where to go, step it, look at it.

The same layout and the same goals give the same states, bit by bit: nothing here knows a clock.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lerobot_vla_plugin.twin.arm_model import FINGERS, JOINTS, ArmModel
from lerobot_vla_plugin.twin.motors import Motors, MotorSettings
from lerobot_vla_plugin.twin.scenes import COLORS, CUBE_HALF_M, Layout
from lerobot_vla_plugin.twin.so101_model import SO101
from lerobot_vla_plugin.twin.stage import CameraPose, camera_pose
from lerobot_vla_plugin.twin.world_model import STEPS_PER_S, build_world_model

_PARKED_M = (2.0, 2.0, 0.0)  # of a bin that no task needs: behind the front camera
_JAMMED_NM_S = 1e5  # damping of a jammed joint: its motor turns it by less than a tick a minute


@dataclass(frozen=True, slots=True)
class WorldState:
    """Everything that decides what happens next; made by `World.save`.

    Attributes:
        layout: The scene.
        steps: Steps since the reset.
        physics: MuJoCo's state for integration.
        goal_rad: Goals of the motors.
        encoder_rad: Encoders of the motors.
        torque_enabled: Which motors drive.
        settings: What the motors are set to.
    """

    layout: Layout
    steps: int
    physics: NDArray[np.float64]
    goal_rad: NDArray[np.float64]
    encoder_rad: NDArray[np.float64]
    torque_enabled: NDArray[np.bool_]
    settings: MotorSettings


class World:
    """An arm, two cubes, a bin and a table, under gravity.

    Args:
        arm: The arm.
        visual: Whether the arm gets its meshes; without them it cannot be drawn, and is ready sooner.

    Attributes:
        arm: The arm.
        model: MuJoCo's model; `reset` changes its colors and lights, `jam` its damping, and nothing else.
        data: MuJoCo's state.
        motors: Goals, torque switches and encoders.
        layout: The scene of the last reset; none before the first.
        steps: Steps since the reset, of 1 / `STEPS_PER_S` seconds.

    Raises:
        ModuleNotFoundError: MuJoCo or the arm's model is not installed.
    """

    layout: Layout

    def __init__(self, arm: ArmModel = SO101, *, visual: bool = True) -> None:
        self.arm = arm
        self.model = build_world_model(arm, visual=visual)
        import mujoco

        self._mujoco = mujoco
        self.data = mujoco.MjData(self.model)
        self.motors = Motors(arm.motors)
        self.steps = 0
        self.joint_limits_rad = np.array([self.model.joint(name).range for name in JOINTS])
        self._links, self._speeds = self.data.qpos[: len(JOINTS)], self.data.qvel[: len(JOINTS)]
        self._fingers = {self.model.geom(name).id for name in FINGERS}
        self._cubes = {self.model.geom(name).id: name for name in COLORS}

    # Time --------------------------------------------------------------------------------------------------

    def reset(self, layout: Layout, posture_rad: ArrayLike | None = None) -> None:
        """Start a scene.

        Args:
            layout: What stands where, and in which light.
            posture_rad: Joint angles of the arm, at rest and under torque, shape (6,), in [rad]; None takes those in
                which its scenes begin.

        Raises:
            ValueError: The posture has another shape, or lies outside of the joints' ranges.
        """
        posture_rad = self._checked(self.arm.start_rad if posture_rad is None else posture_rad)
        self._mujoco.mj_resetData(self.model, self.data)
        self._links[:] = posture_rad
        for name, pose in layout.cubes.items():
            start = self.model.joint(name).qposadr[0]
            half_rad = pose.yaw_rad / 2
            self.data.qpos[start : start + 3] = pose.x_m, pose.y_m, CUBE_HALF_M
            self.data.qpos[start + 3 : start + 7] = np.cos(half_rad), 0, 0, np.sin(half_rad)
        self.data.mocap_pos[0] = (*layout.bin_m, 0) if layout.has_bin else _PARKED_M
        self.motors.reset(posture_rad)
        self.steps = 0
        self._show(layout)

    def step(self, count: int = 1) -> None:
        """Let time pass.

        Args:
            count: Steps, of 1 / `STEPS_PER_S` seconds each.

        Raises:
            ValueError: A goal is not finite.
            FloatingPointError: The simulation broke down; MuJoCo by itself would go on from an empty state.
        """
        if not np.all(np.isfinite(self.motors.goal_rad)):
            raise ValueError(f"expected finite goals of {JOINTS}, got {self.motors.goal_rad} rad")
        for _ in range(count):
            self.data.ctrl[:] = self.motors.torque_nm(self._speeds)
            self._mujoco.mj_step(self.model, self.data)
            self.motors.follow(self._links)
        self.steps += count
        if self.data.warning.number.any():
            raise FloatingPointError(
                f"the world broke down before step {self.steps}; reset it, or restore a state that was saved earlier"
            )
        self._mujoco.mj_fwdPosition(self.model, self.data)  # else poses and contacts lag a step behind the joints

    def jam(self, joints: Sequence[bool]) -> None:
        """Jam joints, so that neither their motors nor anything else turns them, and free the others.

        Args:
            joints: Which of the six.
        """
        self.model.dof_damping[: len(JOINTS)] = np.where(joints, _JAMMED_NM_S, self.arm.motors.back_emf_nm_s)

    @property
    def time_s(self) -> float:
        """Time since the reset, in [s]."""
        return self.steps / STEPS_PER_S

    def save(self) -> WorldState:
        """Everything that decides what happens next."""
        size = self._mujoco.mj_stateSize(self.model, self._mujoco.mjtState.mjSTATE_INTEGRATION)
        physics = np.empty(size)
        self._mujoco.mj_getState(self.model, self.data, physics, self._mujoco.mjtState.mjSTATE_INTEGRATION)
        motors = self.motors
        copies = (motors.goal_rad.copy(), motors.encoder_rad.copy(), motors.torque_enabled.copy())
        return WorldState(self.layout, self.steps, physics, *copies, motors.settings)

    def restore(self, state: WorldState) -> None:
        """Go back to a saved state, of this world or of another one.

        Args:
            state: What `save` gave.
        """
        self._mujoco.mj_resetData(self.model, self.data)
        self._mujoco.mj_setState(self.model, self.data, state.physics, self._mujoco.mjtState.mjSTATE_INTEGRATION)
        self.steps = state.steps
        self.motors.goal_rad = state.goal_rad.copy()
        self.motors.encoder_rad = state.encoder_rad.copy()
        self.motors.torque_enabled = state.torque_enabled.copy()
        self.motors.settings = state.settings
        self._show(state.layout)

    def place(self, positions: ArrayLike) -> None:
        """Put arm and cubes somewhere, without time passing.

        Args:
            positions: MuJoCo's `qpos`, of this world or of another one.
        """
        self.data.qpos[:] = positions
        self._mujoco.mj_fwdPosition(self.model, self.data)

    # What there is to see -----------------------------------------------------------------------------------

    @property
    def joints_rad(self) -> NDArray[np.float64]:
        """What the encoders of the arm read, shape (6,), in [rad], not rounded to ticks."""
        return self.motors.encoder_rad.copy()

    @property
    def joint_speeds_rad_s(self) -> NDArray[np.float64]:
        """Speeds of the arm's joints, shape (6,), in [rad/s]."""
        return self._speeds.copy()

    @property
    def torques_nm(self) -> NDArray[np.float64]:
        """What the motors gave in the last step, shape (6,), in [N m]."""
        return self.data.ctrl.copy()

    def cube_m(self, color: str) -> NDArray[np.float64]:
        """Centre of a cube, shape (3,), in [m].

        Args:
            color: One of `COLORS`.
        """
        return self.data.body(color).xpos.copy()

    def cube_yaw_rad(self, color: str) -> float:
        """Turn of a cube about the vertical, in [rad].

        Args:
            color: One of `COLORS`.
        """
        matrix = self.data.body(color).xmat
        return float(np.arctan2(matrix[3], matrix[0]))

    def cube_speed_m_s(self, color: str) -> float:
        """Speed of a cube's centre, in [m/s].

        Args:
            color: One of `COLORS`.
        """
        start = self.model.joint(color).dofadr[0]
        return float(np.linalg.norm(self.data.qvel[start : start + 3]))

    def fingered(self) -> set[str]:
        """Colors of the cubes that a finger touches now."""
        touching = {pair for pair in map(frozenset, self.data.contact.geom.tolist()) if pair & self._fingers}
        return {self._cubes[geom] for geom in frozenset().union(*touching) if geom in self._cubes}

    def camera(self, name: str) -> CameraPose:
        """Where a camera is now.

        Args:
            name: One of `CAMERAS`.

        Raises:
            KeyError: There is no such camera; the message lists those there are.
        """
        return camera_pose(self.model, self.data, name)

    # How it is done -----------------------------------------------------------------------------------------

    def _show(self, layout: Layout) -> None:
        """Take over a layout's colors and light, which a compiled model lets one change, and compute all poses."""
        self.layout, look, model = layout, layout.look, self.model
        model.geom("table").rgba[:3] = look.table_rgb
        for name, rgb in look.cube_rgb.items():
            model.geom(name).rgba[:3] = rgb
        direction = np.array(look.light_direction)
        model.light_dir[0] = direction / np.linalg.norm(direction)
        model.light_diffuse[0] = look.light
        model.vis.headlight.diffuse[:], model.vis.headlight.ambient[:] = look.headlight, look.ambient
        self._mujoco.mj_fwdPosition(model, self.data)

    def _checked(self, posture_rad: ArrayLike) -> NDArray[np.float64]:
        posture_rad = np.asarray(posture_rad, dtype=np.float64)
        low_rad, high_rad = self.joint_limits_rad.T
        if posture_rad.shape != low_rad.shape or not np.all((posture_rad >= low_rad) & (posture_rad <= high_rad)):
            raise ValueError(
                f"expected angles of {JOINTS} between {low_rad.round(3)} and {high_rad.round(3)} rad, got {posture_rad}"
            )
        return posture_rad
