"""An arm without hardware: leader, follower and two cameras that LeRobot takes for real ones."""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from lerobot_vla_plugin.arms.calibration import JointCalibration, example_calibration, example_calibration_dir
from lerobot_vla_plugin.arms.joints import JointConverter, joint_modes
from lerobot_vla_plugin.twin.bus import ServoBus
from lerobot_vla_plugin.twin.cameras import CameraConfig, CameraProcess
from lerobot_vla_plugin.twin.directory import default_directory, lock_directory
from lerobot_vla_plugin.twin.operator import REST_JOINTS, Operator, TouchTask
from lerobot_vla_plugin.twin.scene import CAMERAS, JOINTS, Scene

_WORLD_STEP_S = 0.01


@dataclass(frozen=True, slots=True)
class TwinConfig:
    """What a twin is like.

    Attributes:
        seed: Seed of the places where the cube appears.
        cameras: Size, rate, port and renderer of the pictures.
        directory: Where the stable names of the two ports lie; one twin a directory.
    """

    seed: int = 0
    cameras: CameraConfig = field(default_factory=CameraConfig)
    directory: Path = field(default_factory=default_directory)


class MakeBus(Protocol):
    """Makes the bus of one arm: its servos as calibrated, standing at [ticks], behind a stable port name."""

    def __call__(
        self, calibration: Mapping[str, JointCalibration], positions_ticks: Mapping[str, int], link: Path
    ) -> ServoBus: ...


@dataclass(frozen=True, slots=True)
class ArmKind:
    """What sets one kind of arm apart.

    Attributes:
        name: LeRobot's types are `<name>_follower` and `<name>_leader`, and so are the ids of the calibrations.
        calibration_name: LeRobot's calibration folders are `<calibration_name>_follower` and `..._leader`.
        use_degrees: LeRobot's default unit between leader and follower; percent otherwise.
        inverts_in_software: As in `JointConverter`.
        make_follower_bus: Makes the follower's bus.
        make_leader_bus: Makes the leader's bus.
    """

    name: str
    calibration_name: str
    use_degrees: bool
    inverts_in_software: bool
    make_follower_bus: MakeBus
    make_leader_bus: MakeBus


class ArmTwin:
    """Leader and follower on pseudo-terminals, cameras over ZMQ, and a scripted person at the leader.

    A context manager; `start` and `stop` do the same by hand. The pictures show an SO-101 in the follower's posture,
    whichever arm it is.

    Args:
        config: What it is like.

    Attributes:
        follower: Bus of the follower.
        leader: Bus of the leader.
        task: Where the cube is, and how often it was touched; only while the twin runs.
    """

    kind: ClassVar[ArmKind]

    def __init__(self, config: TwinConfig | None = None) -> None:
        self.config = config or TwinConfig()
        follower, leader = self._calibration("follower"), self._calibration("leader")
        self._follower_joints, self._leader_joints = self._converter(follower, True), self._converter(leader, True)
        self._sent = self._converter(follower, self.kind.use_degrees)
        self._received = self._converter(leader, self.kind.use_degrees)
        rest_ticks = self._follower_joints.to_ticks(REST_JOINTS).tolist()
        self.follower = self.kind.make_follower_bus(
            follower, dict(zip(JOINTS, rest_ticks, strict=True)), self.follower_port
        )
        self.leader = self.kind.make_leader_bus(leader, self._leader_ticks(REST_JOINTS), self.leader_port)
        self._cameras = CameraProcess(self.config.cameras)
        self._stopping = threading.Event()
        self._world: threading.Thread | None = None
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
        scene = Scene(visual=False)
        self._lock = lock_directory(self.config.directory)
        try:
            for bus in (self.follower, self.leader):
                bus.start()
            self.task = TouchTask(scene, self.config.seed, time.monotonic())
            self._cameras.start(self.follower_joints(), self.task.cube_m)
        except BaseException:
            self.stop()
            raise
        self._stopping.clear()
        self._world = threading.Thread(target=self._run_world, args=(scene,), name="twin-world", daemon=True)
        self._world.start()

    def stop(self) -> None:
        """End threads and camera process, remove the ports' names; does nothing where it does not run."""
        self._stopping.set()
        if self._world is not None:
            self._world.join()
            self._world = None
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
        size = self.config.cameras
        cameras = ", ".join(
            f"{name}: {{type: zmq, server_address: 127.0.0.1, port: {self.camera_port}, camera_name: {name}, "
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

    # The world --------------------------------------------------------------------------------------

    def _run_world(self, scene: Scene) -> None:
        operator = Operator(time.monotonic())
        picture_s = 1 / self.config.cameras.fps
        next_picture_s = 0.0
        while not self._stopping.wait(_WORLD_STEP_S):
            now = time.monotonic()
            joints = self.follower_joints()
            scene.place(joints)
            self.task.update(now, scene.tip_m)
            wanted = operator.joints(now, self.task.goal_joints)
            self.leader.set_positions_by_hand(self._leader_ticks(wanted))
            if now >= next_picture_s:
                self._cameras.send_pose(joints, self.task.cube_m)
                next_picture_s = now + picture_s / 2  # twice the pictures' rate, so that none is a frame old

    def _leader_ticks(self, joints: NDArray[np.float64]) -> dict[str, int]:
        """Where the leader must stand so that LeRobot brings the follower to a posture."""
        units = self._sent.to_units(self._follower_joints.to_exact_ticks(joints))
        return dict(zip(JOINTS, self._received.to_ticks(units).tolist(), strict=True))

    def _calibration(self, role: str) -> dict[str, JointCalibration]:
        return example_calibration(f"{self.kind.calibration_name}_{role}", f"{self.kind.name}_{role}")

    def _converter(self, calibration: dict[str, JointCalibration], degrees: bool) -> JointConverter:
        modes = joint_modes(JOINTS, degrees=degrees)
        return JointConverter(calibration, modes, inverts_in_software=self.kind.inverts_in_software)


def _joints(bus: ServoBus, converter: JointConverter) -> NDArray[np.float64]:
    ticks = bus.positions_ticks()
    return converter.to_units([ticks[joint] for joint in JOINTS])
