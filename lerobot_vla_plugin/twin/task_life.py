"""A twin with tasks: its world runs in real time or in lock-step, and whoever evaluates it says which scene is next."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lerobot_vla_plugin.twin.arm_model import JOINTS
from lerobot_vla_plugin.twin.bus import ServoBus
from lerobot_vla_plugin.twin.cameras import CameraProcess
from lerobot_vla_plugin.twin.control_server import Answer
from lerobot_vla_plugin.twin.driven_arm import DrivenArm
from lerobot_vla_plugin.twin.workplace import Workplace
from lerobot_vla_plugin.twin.world import START_RAD, World
from lerobot_vla_plugin.twin.world_model import STEPS_PER_S

_TICK_S = 0.01
_LARGEST_LAG_S = 0.25
_COMPLAINT_S = 10.0

logger = logging.getLogger(__name__)


class TaskLife:
    """Owns the time of a world.

    Args:
        scene: Task, seed and color of the first scene.
        make_arm: Puts servos behind a world's arm.
        leader: Bus of the leader.
        leader_ticks: As for `Workplace`.
        cameras: What shows it.
        picture_s: Time between two pictures in real time, in [s].
        lock_step: Whether time passes on request only.
    """

    def __init__(
        self,
        scene: tuple[str, int, str | None],
        make_arm: Callable[[World], DrivenArm],
        leader: ServoBus,
        leader_ticks: Callable[[NDArray[np.float64]], dict[str, int]],
        cameras: CameraProcess,
        picture_s: float,
        *,
        lock_step: bool,
    ) -> None:
        self._scene, self._make_arm, self._leader, self._leader_ticks = scene, make_arm, leader, leader_ticks
        self._cameras, self._picture_s, self._lock_step = cameras, picture_s, lock_step
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._workplace: Workplace | None = None

    def start(self) -> None:
        """Lay the first scene, and let time pass unless it is in lock-step.

        Raises:
            KeyError: There is no such task or color.
            ModuleNotFoundError: MuJoCo, mink or the arm's model is not installed.
            RuntimeError: The cameras do not start.
        """
        world = World(visual=False)
        self._workplace = Workplace(world, self._make_arm(world), self._leader, self._leader_ticks)
        self._workplace.lay(*self._scene)
        self._cameras.start(self._workplace.picture())
        self._stopping.clear()
        if not self._lock_step:
            self._thread = threading.Thread(target=self._run, name="twin-world", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End; does nothing where it does not run."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    @property
    def workplace(self) -> Workplace:
        """Where it happens; only once started."""
        assert self._workplace is not None
        return self._workplace

    def time_s(self) -> float:
        """Simulated time since the start, in [s]."""
        return self._workplace.time_s if self._workplace else 0.0

    # What a client asks for --------------------------------------------------------------------------------

    def answers(self) -> Mapping[str, Answer]:
        """Request -> what fulfils it."""
        return {"reset": self._reset, "advance": self._advance, "verdict": self._verdict}

    def _reset(self, task: str, seed: int, color: str | None = None) -> dict[str, Any]:
        place = self.workplace
        with self._lock:
            place.lay(task, seed, color)
            self._cameras.send(place.picture(), wait=True)
            layout = place.layout
            return {
                "task": task,
                "seed": seed,
                "instruction": layout.instruction,
                "color": layout.color,
                "time_limit_s": layout.task.time_limit_s,
                "start_rad": dict(zip(JOINTS, START_RAD.tolist(), strict=True)),
                "layout": {
                    "cubes": {color: asdict(pose) for color, pose in layout.cubes.items()},
                    "bin_m": list(layout.bin_m) if layout.has_bin else None,
                },
                "step": place.steps,
            }

    def _advance(self, steps: int) -> dict[str, Any]:
        if not self._lock_step:
            raise ValueError("this twin runs in real time; start it with --lock-step to let time pass on request")
        if not isinstance(steps, int) or steps < 1:
            raise ValueError(f"expected a number of steps of 1 or more, got {steps!r}")
        with self._lock:
            self.workplace.run(steps)
            self._cameras.send(self.workplace.picture(), wait=True)
            return {"step": self.workplace.steps}

    def _verdict(self) -> dict[str, Any]:
        with self._lock:
            place = self.workplace
            verdict = place.verdict
            return {
                "success": verdict.success,
                "taken": verdict.taken,
                "done": {str(goal): list(colors) for goal, colors in verdict.done.items()},
                "step": place.steps,
                "seconds": place.scene_s,
            }

    # Real time ---------------------------------------------------------------------------------------------

    def _run(self) -> None:
        place, began_s, next_picture_s, complained_s = self.workplace, time.monotonic(), 0.0, 0.0
        made = 0
        while not self._stopping.wait(_TICK_S):
            now = time.monotonic()
            due = int((now - began_s) * STEPS_PER_S) - made
            if due > _LARGEST_LAG_S * STEPS_PER_S:
                if now - complained_s > _COMPLAINT_S:
                    logger.warning(
                        "this computer is too slow for real time: the world is %.2f s late", due / STEPS_PER_S
                    )
                    complained_s = now
                made, due = made + due, round(_TICK_S * STEPS_PER_S)
                made -= due
            with self._lock:
                place.run(due)
                made += due
                if now >= next_picture_s:
                    self._cameras.send(place.picture())
                    next_picture_s = now + self._picture_s / 2
