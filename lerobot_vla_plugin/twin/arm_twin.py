"""An arm without hardware: leader, follower and two cameras that LeRobot takes for real ones."""

from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from lerobot_vla_plugin.arms.calibration import JointCalibration, example_calibration, example_calibration_dir
from lerobot_vla_plugin.arms.joints import JointConverter, joint_modes
from lerobot_vla_plugin.twin.arm_model import JOINTS
from lerobot_vla_plugin.twin.bus import ServoBus
from lerobot_vla_plugin.twin.cameras import CameraProcess
from lerobot_vla_plugin.twin.control_server import ControlServer
from lerobot_vla_plugin.twin.directory import lock_directory
from lerobot_vla_plugin.twin.driven_arm import DrivenArm
from lerobot_vla_plugin.twin.operator import REST_JOINTS, TouchTask
from lerobot_vla_plugin.twin.stage import CAMERAS
from lerobot_vla_plugin.twin.task_life import TaskLife
from lerobot_vla_plugin.twin.touch_life import TouchLife
from lerobot_vla_plugin.twin.twin_config import ArmKind, TwinConfig
from lerobot_vla_plugin.twin.world import World
from lerobot_vla_plugin.twin.world_model import STEPS_PER_S

__all__ = ["ArmKind", "ArmTwin", "TwinConfig"]


class ArmTwin:
    """Leader and follower on pseudo-terminals, cameras over ZMQ, and a scripted person at the leader.

    A context manager; `start` and `stop` do the same by hand. Without a task the pictures show an SO-101 in the
    follower's posture, whichever arm it is.

    Args:
        config: What it is like.

    Attributes:
        follower: Bus of the follower.
        leader: Bus of the leader.
    """

    kind: ClassVar[ArmKind]

    def __init__(self, config: TwinConfig | None = None) -> None:
        self.config = config = config or TwinConfig()
        self._calibration = self._example_calibration("follower")
        leader = self._example_calibration("leader")
        self._follower_joints, self._leader_joints = (
            self._converter(self._calibration, True),
            self._converter(leader, True),
        )
        self._sent = self._converter(self._calibration, self.kind.use_degrees)
        self._received = self._converter(leader, self.kind.use_degrees)
        rest_ticks = self._follower_joints.to_exact_ticks(REST_JOINTS)
        self.follower = self._make_follower(dict(zip(JOINTS, rest_ticks.round().astype(int).tolist(), strict=True)))
        self.leader = self.kind.make_leader_bus(
            leader, self._leader_ticks(rest_ticks), self.leader_port, self._clock if config.lock_step else None
        )
        seen = self.kind.model.name if config.task else None
        self._cameras = CameraProcess(config.cameras, arm=seen, lock_step=config.lock_step)
        self._life = self._make_life()
        self._control: ControlServer | None = None
        self._lock: IO[str] | None = None

    # Life --------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Open the ports, start the cameras, and let the person begin.

        Raises:
            DirectoryInUseError: Another twin holds the directory.
            OSError: The system has no pseudo-terminals (Windows).
            ModuleNotFoundError: MuJoCo or the arm's model is not installed.
            RuntimeError: The cameras do not start.
        """
        self._lock = lock_directory(self.config.directory)
        try:
            for bus in (self.follower, self.leader):
                bus.start()
            self._life.start()
            if isinstance(self._life, TaskLife):
                control = ControlServer(self.config.directory, self._facts, self._life.answers(), self._life.part)
                control.start()
                self._control = control
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End threads and camera process, remove the ports' names; does nothing where it does not run."""
        if self._control is not None:
            self._control.stop()
            self._control = None
        self._life.stop()
        self._cameras.stop()
        if self._lock is None:
            return
        for bus in (self.follower, self.leader):
            bus.stop()
        # Closing gives the lock back. The file stays: removing it would race with the next twin.
        self._lock.close()
        self._lock = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # What a host needs to know --------------------------------------------------------------------------

    @property
    def follower_port(self) -> Path:
        """Stable name of the follower's serial port."""
        return self.config.directory / "follower"

    @property
    def leader_port(self) -> Path:
        """Stable name of the leader's serial port."""
        return self.config.directory / "leader"

    @property
    def camera_port(self) -> int:
        """TCP port on 127.0.0.1 that publishes both cameras."""
        return self._cameras.port

    @property
    def renderer(self) -> str:
        """Name of the renderer that makes the pictures."""
        return self._cameras.renderer

    def robot_arguments(self, *, with_cameras: bool = True, own_types: bool = False) -> list[str]:
        """Arguments that make a LeRobot command use the follower.

        Args:
            with_cameras: Whether it sees the cameras too; `lerobot-replay` does not know LeRobot's ZMQ camera.
            own_types: Whether this package's type of follower drives it instead of LeRobot's.
        """
        arm = self._device_arguments("robot", "follower", self.follower_port, own_types)
        if not with_cameras:
            return arm
        size, kind = self.config.cameras, "step_zmq" if self.config.lock_step else "zmq"
        cameras = ", ".join(
            f"{name}: {{type: {kind}, server_address: 127.0.0.1, port: {self.camera_port}, camera_name: {name}, "
            f"width: {size.width}, height: {size.height}, fps: {size.fps}}}"
            for name in CAMERAS
        )
        return [*arm, f"--robot.cameras={{{cameras}}}"]

    def teleop_arguments(self, *, own_types: bool = False) -> list[str]:
        """Arguments that make any LeRobot command use the leader.

        Args:
            own_types: Whether this package's type of leader reads it instead of LeRobot's.
        """
        return self._device_arguments("teleop", "leader", self.leader_port, own_types)

    def _device_arguments(self, option: str, role: str, port: Path, own_types: bool) -> list[str]:
        return [
            f"--{option}.type={self.kind.name}_{'vla_' if own_types else ''}{role}",
            f"--{option}.port={port}",
            f"--{option}.id={self.kind.name}_{role}",
            f"--{option}.calibration_dir={example_calibration_dir(f'{self.kind.calibration_name}_{role}')}",
        ]

    def summary(self) -> str:
        """What has happened since the start, in a few words."""
        return self._life.summary()

    # What a test or a demo wants to see -----------------------------------------------------------------

    def torque_enabled(self) -> bool:
        """Whether any servo of the follower is under torque."""
        return any(self.follower.torque_enabled().values())

    def follower_joints(self) -> NDArray[np.float64]:
        """Posture of the follower, shape (6,): five angles in [deg], gripper in [0, 100]."""
        return _joints(self.follower, self._follower_joints)

    def leader_joints(self) -> NDArray[np.float64]:
        """Posture of the leader, like `follower_joints`."""
        return _joints(self.leader, self._leader_joints)

    @property
    def camera_pid(self) -> int | None:
        """Process id of the cameras; None while the twin does not run."""
        return self._cameras.pid

    @property
    def task(self) -> TouchTask:
        """Where the cube is, and how often it was touched; only while a twin without a task runs."""
        assert isinstance(self._life, TouchLife)
        return self._life.task

    @property
    def task_life(self) -> TaskLife:
        """World, scenes and person; only of a twin with tasks."""
        assert isinstance(self._life, TaskLife)
        return self._life

    # How it is put together ------------------------------------------------------------------------------

    def _make_follower(self, rest_ticks: Mapping[str, int]) -> ServoBus:
        if self.config.task is None:
            return self.kind.make_follower_bus(self._calibration, rest_ticks, self.follower_port)
        clock = self._clock if self.config.lock_step else None
        return self.kind.make_driven_bus(self._calibration, rest_ticks, self.follower_port, clock)

    def _make_life(self) -> TouchLife | TaskLife:
        config, picture_s = self.config, 1 / self.config.cameras.fps
        if config.task is None:
            return TouchLife(
                config.seed, self.follower_joints, self.leader, self._touch_ticks, self._cameras, picture_s
            )
        scene = (config.task, config.seed, config.color)
        return TaskLife(
            scene,
            self.kind.model,
            self._make_arm,
            self.follower,
            self.leader,
            self._leader_ticks,
            self._cameras,
            picture_s,
            lock_step=config.lock_step,
        )

    def _make_arm(self, world: World) -> DrivenArm:
        return DrivenArm(world, self.follower, self._calibration, inverts_in_software=self.kind.inverts_in_software)

    def _clock(self) -> float:
        """Simulated time of a twin in lock-step, in [s]."""
        return self._life.time_s() if isinstance(self._life, TaskLife) else 0.0

    def _facts(self) -> dict[str, Any]:
        """Greeting to a client of `control`."""
        return {
            "arm": self.kind.name,
            "lock_step": self.config.lock_step,
            "steps_per_s": STEPS_PER_S,
            "follower_port": str(self.follower_port),
            "leader_port": str(self.leader_port),
            "camera_port": self.camera_port,
            "step": round(self._clock() * STEPS_PER_S),
        }

    def _touch_ticks(self, joints: NDArray[np.float64]) -> dict[str, int]:
        return self._leader_ticks(self._follower_joints.to_exact_ticks(joints))

    def _leader_ticks(self, follower_ticks: NDArray[np.float64]) -> dict[str, int]:
        """Where the leader must stand so that LeRobot brings the follower somewhere."""
        units = self._sent.to_units(follower_ticks)
        return dict(zip(JOINTS, self._received.to_ticks(units).tolist(), strict=True))

    def _example_calibration(self, role: str) -> dict[str, JointCalibration]:
        return example_calibration(f"{self.kind.calibration_name}_{role}", f"{self.kind.name}_{role}")

    def _converter(self, calibration: Mapping[str, JointCalibration], degrees: bool) -> JointConverter:
        modes = joint_modes(JOINTS, degrees=degrees)
        return JointConverter(calibration, modes, inverts_in_software=self.kind.inverts_in_software)


def _joints(bus: ServoBus, converter: JointConverter) -> NDArray[np.float64]:
    ticks = bus.positions_ticks()
    return converter.to_units([ticks[joint] for joint in JOINTS])
