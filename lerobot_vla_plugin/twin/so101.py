"""An SO-101 without hardware: leader, follower and two cameras that LeRobot takes for real ones."""

import os
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from lerobot_vla_plugin.arms.calibration import (
    JointCalibration,
    example_calibration,
    example_calibration_dir,
)
from lerobot_vla_plugin.arms.joints import (
    degrees_to_ticks,
    percent_to_ticks,
    ticks_to_degrees,
    ticks_to_percent,
)
from lerobot_vla_plugin.twin.bus import ServoBus
from lerobot_vla_plugin.twin.cameras import CameraConfig, CameraProcess
from lerobot_vla_plugin.twin.operator import REST_JOINTS, Operator, TouchTask
from lerobot_vla_plugin.twin.scene import CAMERAS, JOINTS, Scene
from lerobot_vla_plugin.twin.servo import Servo

FOLLOWER_ID = "so101_follower"
LEADER_ID = "so101_leader"
_WORLD_STEP_S = 0.01


class TwinAlreadyRunningError(RuntimeError):
    """Another twin holds the directory."""


def default_directory() -> Path:
    """Folder of the twin's stable port names, one a user."""
    user = os.getuid() if hasattr(os, "getuid") else 0
    return Path(tempfile.gettempdir()) / f"lerobot-vla-twin-{user}"


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


class SO101Twin:
    """Leader and follower on pseudo-terminals, cameras over ZMQ, and a scripted person at the leader.

    A context manager; `start` and `stop` do the same by hand.

    Args:
        config: What it is like.

    Attributes:
        follower: Bus of the follower.
        leader: Bus of the leader.
        task: Where the cube is, and how often it was touched; only while the twin runs.
    """

    def __init__(self, config: TwinConfig | None = None) -> None:
        self.config = config or TwinConfig()
        self._calibrations = {
            "follower": example_calibration("so_follower", FOLLOWER_ID),
            "leader": example_calibration("so_leader", LEADER_ID),
        }
        self.follower = _make_bus("follower", self._calibrations["follower"])
        self.leader = _make_bus("leader", self._calibrations["leader"])
        self._cameras = CameraProcess(self.config.cameras)
        self._stopping = threading.Event()
        self._world: threading.Thread | None = None
        self._lock: IO[str] | None = None

    # Life --------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Open the ports, start the cameras, and let the person begin.

        Raises:
            TwinAlreadyRunningError: Another twin holds the directory.
            OSError: The system has no pseudo-terminals (Windows).
            ModuleNotFoundError: MuJoCo or the arm's model is not installed.
            RuntimeError: The cameras do not start.
        """
        scene = Scene(visual=False)
        self._lock = _lock_directory(self.config.directory)
        try:
            for bus in (self.follower, self.leader):
                bus.start()
                _link(self.config.directory / bus.name, bus.port)
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
            (self.config.directory / bus.name).unlink(missing_ok=True)
        # Closing gives the lock back. The file stays: removing it would race with the next twin.
        self._lock.close()
        self._lock = None

    def __enter__(self) -> "SO101Twin":
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

    def robot_arguments(self, *, with_cameras: bool = True) -> list[str]:
        """Arguments that make a LeRobot command use the follower.

        Args:
            with_cameras: Whether it sees the cameras too; `lerobot-replay` does not know LeRobot's ZMQ camera.
        """
        arm = [
            "--robot.type=so101_follower",
            f"--robot.port={self.follower_port}",
            f"--robot.id={FOLLOWER_ID}",
            f"--robot.calibration_dir={example_calibration_dir('so_follower')}",
        ]
        if not with_cameras:
            return arm
        size = self.config.cameras
        cameras = ", ".join(
            f"{name}: {{type: zmq, server_address: 127.0.0.1, port: {self.camera_port}, camera_name: {name}, "
            f"width: {size.width}, height: {size.height}, fps: {size.fps}}}"
            for name in CAMERAS
        )
        return [*arm, f"--robot.cameras={{{cameras}}}"]

    def teleop_arguments(self) -> list[str]:
        """Arguments that make any LeRobot command use the leader."""
        return [
            "--teleop.type=so101_leader",
            f"--teleop.port={self.leader_port}",
            f"--teleop.id={LEADER_ID}",
            f"--teleop.calibration_dir={example_calibration_dir('so_leader')}",
        ]

    # What a test or a demo wants to see -----------------------------------------------------------------

    def torque_enabled(self) -> bool:
        """Whether any servo of the follower is under torque."""
        return any(self.follower.torque_enabled().values())

    def follower_joints(self) -> NDArray[np.float64]:
        """Posture of the follower, shape (6,): five angles in [deg], gripper in [0, 100]."""
        return _to_joints(self.follower.positions_ticks(), self._calibrations["follower"])

    def leader_joints(self) -> NDArray[np.float64]:
        """Posture of the leader, like `follower_joints`."""
        return _to_joints(self.leader.positions_ticks(), self._calibrations["leader"])

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
            self.leader.set_positions_by_hand(_to_ticks(wanted, self._calibrations["leader"]))
            if now >= next_picture_s:
                self._cameras.send_pose(joints, self.task.cube_m)
                next_picture_s = now + picture_s / 2  # twice the pictures' rate, so that none is a frame old


def _make_bus(name: str, calibration: dict[str, JointCalibration]) -> ServoBus:
    rest_ticks = _to_ticks(REST_JOINTS, calibration)
    return ServoBus({joint: Servo(calibration[joint], rest_ticks[joint]) for joint in JOINTS}, name)


def _to_joints(ticks: dict[str, int], calibration: dict[str, JointCalibration]) -> NDArray[np.float64]:
    arm = [ticks_to_degrees(ticks[name], calibration[name]) for name in JOINTS[:-1]]
    gripper = ticks_to_percent(ticks[JOINTS[-1]], calibration[JOINTS[-1]], gripper=True)
    return np.array([*arm, gripper])


def _to_ticks(joints: NDArray[np.float64], calibration: dict[str, JointCalibration]) -> dict[str, int]:
    ticks = {name: int(degrees_to_ticks(joints[i], calibration[name])) for i, name in enumerate(JOINTS[:-1])}
    ticks[JOINTS[-1]] = int(percent_to_ticks(joints[-1], calibration[JOINTS[-1]], gripper=True))
    return ticks


def _lock_directory(directory: Path) -> IO[str]:
    """Take the directory; the system gives the lock back when the process dies, whatever kills it."""
    try:
        import fcntl
    except ImportError as error:
        raise OSError("the twin needs pseudo-terminals, which Windows lacks; use Linux or macOS") from error
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = (directory / "lock").open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        pid = lock.read().strip()
        lock.close()
        raise TwinAlreadyRunningError(
            f"a twin runs already in {directory} (process {pid}); stop it with `kill {pid}`, "
            "or give this one another --directory"
        ) from None
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock


def _link(name: Path, port: str) -> None:
    name.unlink(missing_ok=True)  # left behind by a twin that was killed
    name.symlink_to(port)
