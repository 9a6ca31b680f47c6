"""A twin without physics: the person at the leader touches a cube, which then jumps, and so on."""

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lerobot_vla_plugin.twin.bus import ServoBus
from lerobot_vla_plugin.twin.cameras import CameraProcess
from lerobot_vla_plugin.twin.operator import Operator, TouchTask
from lerobot_vla_plugin.twin.scene import Scene

_STEP_S = 0.01


class TouchLife:
    """Moves the leader and sends the pictures, in a thread of its own.

    Args:
        seed: Seed of the places where the cube appears.
        follower_joints: Posture of the follower, as `Scene.place` takes it.
        leader: Bus of the leader.
        leader_ticks: Where the leader must stand so that LeRobot brings the follower to such a posture.
        cameras: What shows it.
        picture_s: Time between two pictures, in [s].

    Attributes:
        task: Where the cube is, and how often it was touched; only while it runs.
    """

    task: TouchTask

    def __init__(
        self,
        seed: int,
        follower_joints: Callable[[], NDArray[np.float64]],
        leader: ServoBus,
        leader_ticks: Callable[[NDArray[np.float64]], dict[str, int]],
        cameras: CameraProcess,
        picture_s: float,
    ) -> None:
        self._seed, self._follower_joints, self._leader = seed, follower_joints, leader
        self._leader_ticks, self._cameras, self._picture_s = leader_ticks, cameras, picture_s
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start cameras and person.

        Raises:
            ModuleNotFoundError: MuJoCo or the arm's model is not installed.
            RuntimeError: The cameras do not start.
        """
        scene = Scene(visual=False)
        self.task = TouchTask(scene, self._seed, time.monotonic())
        self._cameras.start(self._picture(self._follower_joints()))
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, args=(scene,), name="twin-world", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End; does nothing where it does not run."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def summary(self) -> str:
        """How often the cube was touched."""
        return f"the cube was touched {self.task.touches} times"

    def _run(self, scene: Scene) -> None:
        operator = Operator(time.monotonic())
        next_picture_s = 0.0
        while not self._stopping.wait(_STEP_S):
            now = time.monotonic()
            joints = self._follower_joints()
            scene.place(joints)
            self.task.update(now, scene.tip_m)
            wanted = operator.joints(now, self.task.goal_joints)
            self._leader.set_positions_by_hand(self._leader_ticks(wanted))
            if now >= next_picture_s:
                self._cameras.send(self._picture(joints))
                next_picture_s = now + self._picture_s / 2  # twice the pictures' rate, so that none is a frame old

    def _picture(self, joints: NDArray[np.float64]) -> dict[str, Any]:
        return {"joints": joints.tolist(), "cube_m": self.task.cube_m.tolist()}
