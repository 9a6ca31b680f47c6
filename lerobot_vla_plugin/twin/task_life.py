"""A twin with tasks: its world runs in real time or in lock-step, and whoever evaluates it says which scene is next."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lerobot_vla_plugin.twin.arm_model import JOINTS, ArmModel
from lerobot_vla_plugin.twin.bus import ServoBus
from lerobot_vla_plugin.twin.cameras import CameraProcess
from lerobot_vla_plugin.twin.control_server import Answer
from lerobot_vla_plugin.twin.driven_arm import DrivenArm
from lerobot_vla_plugin.twin.rounds import PAUSE_S, Rounds
from lerobot_vla_plugin.twin.workplace import Workplace
from lerobot_vla_plugin.twin.world import World
from lerobot_vla_plugin.twin.world_model import STEPS_PER_S

_TICK_S = 0.01
_LARGEST_LAG_S = 0.25
_COMPLAINT_S = 10.0

logger = logging.getLogger(__name__)


class TaskLife:
    """Owns the time of a world.

    Args:
        scene: Task, seed and color of the first scene.
        arm: The arm.
        make_arm: Puts servos behind a world's arm.
        follower: Bus of the follower.
        leader: Bus of the leader.
        leader_ticks: As for `Workplace`.
        cameras: What shows it.
        picture_s: Time between two pictures in real time, in [s].
        lock_step: Whether time passes on request only.
    """

    def __init__(
        self,
        scene: tuple[str, int, str | None],
        arm: ArmModel,
        make_arm: Callable[[World], DrivenArm],
        follower: ServoBus,
        leader: ServoBus,
        leader_ticks: Callable[[NDArray[np.float64]], dict[str, int]],
        cameras: CameraProcess,
        picture_s: float,
        *,
        lock_step: bool,
    ) -> None:
        self._scene, self._arm, self._make_arm = scene, arm, make_arm
        self._follower, self._leader = follower, leader
        self._leader_ticks = leader_ticks
        self._cameras, self._picture_s, self._lock_step = cameras, picture_s, lock_step
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._workplace: Workplace | None = None
        self._is_refereed = False  # by a client, who then says which scene is next

    def start(self) -> None:
        """Lay the first scene, and let time pass unless it is in lock-step.

        Raises:
            KeyError: There is no such task or color.
            ModuleNotFoundError: MuJoCo, mink or the arm's model is not installed.
            RuntimeError: The cameras do not start.
        """
        world = World(self._arm, visual=False)
        place = Workplace(world, self._make_arm(world), self._leader, self._leader_ticks)
        place.lay(*self._scene)
        self._workplace = place
        self._cameras.start(place.picture())
        self._stopping.clear()
        if self._lock_step:
            place.begin()
        else:
            self._thread = threading.Thread(target=self._run, args=(place,), name="twin-world", daemon=True)
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

    def summary(self) -> str:
        """How often the task was done."""
        place = self.workplace
        return f"the task was done in {place.successes} of {place.attempts} attempts"

    # What a client asks for --------------------------------------------------------------------------------

    def answers(self) -> Mapping[str, Answer]:
        """Request -> what fulfils it."""
        return {"reset": self._reset, "advance": self._advance, "verdict": self._verdict}

    def _reset(self, task: str, seed: int, color: str | None = None) -> dict[str, Any]:
        place = self.workplace
        with self._lock:
            place.lay(task, seed, color)
            place.begin()
            self._is_refereed = True
            self._cameras.send(place.picture(), wait=True)
            layout = place.layout
            return {
                "task": task,
                "seed": seed,
                "instruction": layout.instruction,
                "color": layout.color,
                "time_limit_s": layout.task.time_limit_s,
                "start_rad": dict(zip(JOINTS, place.start_rad.tolist(), strict=True)),
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

    def part(self) -> None:
        """The client has gone: in real time the person goes on alone."""
        with self._lock:
            self._is_refereed = False

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

    def _run(self, place: Workplace) -> None:
        rounds, due_steps, next_picture_s = Rounds(place, self._scene), _DueSteps(time.monotonic()), 0.0
        was_refereed = False
        while not self._stopping.wait(_TICK_S):
            now = time.monotonic()
            with self._lock:
                if was_refereed and not self._is_refereed:
                    rounds.lay_next(now, torque=self._has_torque())
                was_refereed = self._is_refereed
                due = due_steps.count(now)
                if was_refereed or self._goes_on(rounds, now):
                    place.run(due, person_waits=now - self._follower.goal_s > PAUSE_S)
                if now >= next_picture_s:
                    self._cameras.send(place.picture())
                    next_picture_s = now + self._picture_s / 2  # twice the pictures' rate, so that none is a frame old

    def _goes_on(self, rounds: Rounds, now: float) -> bool:
        goal_s, read_s = self._follower.goal_s, self._leader.heard_s
        return rounds.update(now, goal_s=goal_s, read_s=read_s, torque=self._has_torque())

    def _has_torque(self) -> bool:
        return any(self._follower.torque_enabled().values())


class _DueSteps:
    """Counts the steps that make up for the time since the last count.

    Args:
        now_s: Now, in [s].
    """

    def __init__(self, now_s: float) -> None:
        self._made_s, self._complained_s = now_s, -np.inf

    def count(self, now_s: float) -> int:
        """Steps to make now. A computer that is too slow loses the time that it cannot make up for, and is told so.

        Args:
            now_s: Now, in [s].
        """
        late_s = now_s - self._made_s
        if late_s > _LARGEST_LAG_S:
            if now_s - self._complained_s > _COMPLAINT_S:
                logger.warning("this computer is too slow for real time: the twin's world has just lost %.2f s", late_s)
                self._complained_s = now_s
            self._made_s, late_s = now_s - _TICK_S, _TICK_S
        steps = int(late_s * STEPS_PER_S)
        self._made_s += steps / STEPS_PER_S
        return steps
