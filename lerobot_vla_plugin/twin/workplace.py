"""Where a twin's tasks happen: a world behind the follower's servos, a judge, and a person at the leader."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lerobot_vla_plugin.twin.bus import ServoBus
from lerobot_vla_plugin.twin.driven_arm import DrivenArm
from lerobot_vla_plugin.twin.hand import Attempt, Hand, Rest
from lerobot_vla_plugin.twin.judge import Judge, Verdict
from lerobot_vla_plugin.twin.kinematics import Kinematics
from lerobot_vla_plugin.twin.operator import minimum_jerk
from lerobot_vla_plugin.twin.scenes import Layout, draw_layout
from lerobot_vla_plugin.twin.world import World
from lerobot_vla_plugin.twin.world_model import STEPS_PER_S

LEAD_BACK_S = 1.5
_STEPS_A_LOOK = 30  # the judge looks ten times a second or more often


class Workplace:
    """One scene after the other, for whoever says when.

    Args:
        world: The world.
        arm: Its arm, as the follower's servos move it.
        leader: Bus of the leader.
        leader_ticks: Where the leader must stand so that LeRobot brings the follower to positions in [ticks].

    Attributes:
        start_rad: Posture of the arm in which scenes begin, shape (6,), in [rad].
        steps: Steps that the world has made in all scenes, and one for laying each of them.
        layout: The scene.
        verdict: What has been done in it.
        attempts: How many attempts were begun.
        successes: How many of them have succeeded.
    """

    layout: Layout
    verdict: Verdict

    def __init__(
        self,
        world: World,
        arm: DrivenArm,
        leader: ServoBus,
        leader_ticks: Callable[[NDArray[np.float64]], dict[str, int]],
    ) -> None:
        self._world, self._arm, self._leader, self._leader_ticks = world, arm, leader, leader_ticks
        self.start_rad = world.arm.start_rad
        self._kinematics = Kinematics(world.arm)
        self._rest = Hand(Rest(self.start_rad), self._kinematics)
        self._back_from_rad, self._back_from_s = self.start_rad, -LEAD_BACK_S
        self._attempt: Attempt | None = None
        self._attempt_steps = 0  # of the attempt's own time
        self.steps = self._first_step = self.attempts = self.successes = 0

    @property
    def time_s(self) -> float:
        """Simulated time since the twin's start, in [s]."""
        return self.steps / STEPS_PER_S

    @property
    def scene_s(self) -> float:
        """Simulated time since the scene began, in [s]."""
        return (self.steps - self._first_step) / STEPS_PER_S

    def lay(self, task: str, seed: int, color: str | None = None, *, keep_posture: bool = False) -> None:
        """Lay a scene, and have the person wait.

        Args:
            task: As for `draw_layout`.
            seed: As for `draw_layout`; decides the person's motion, too.
            color: As for `draw_layout`.
            keep_posture: Whether the arm stays as it stands; else it and the leader stand at the start posture at once.

        Raises:
            KeyError: There is no such task or color.
        """
        world, layout = self._world, draw_layout(task, seed, color)
        self._arm.reset(layout, world.joints_rad.clip(*world.joint_limits_rad.T) if keep_posture else None)
        self.layout, self._seed = layout, seed
        self._judge = Judge(layout)
        self.verdict = self._judge.look(world)
        self.steps += 1  # else a picture of the scene before could pass for one of this scene
        self._attempt, self._first_step = None, self.steps
        if not keep_posture:
            self._lead(self.start_rad)

    def begin(self) -> None:
        """Have the person begin, and the scene's time."""
        self._attempt = Attempt(self._world, self._kinematics, np.random.default_rng(self._seed))
        self._attempt_steps, self._first_step = 0, self.steps
        self.attempts += 1

    def lead_back(self) -> None:
        """Have the person give up or be content, and lead the arm back to its start posture, in `LEAD_BACK_S`."""
        self._back_from_rad, self._back_from_s = self._wanted_rad(), self.time_s
        self._attempt = None

    def run(self, steps: int, *, person_waits: bool = False) -> None:
        """Let time pass; the leader then is where the person holds it at that moment.

        Args:
            steps: How many.
            person_waits: Whether the person stops in the midst of the motion, because the arm does not come along.
        """
        for start in range(0, steps, _STEPS_A_LOOK):
            count = min(_STEPS_A_LOOK, steps - start)
            self._arm.step(count)
            self.steps += count
            before, self.verdict = self.verdict, self._judge.look(self._world)
            self.successes += self.verdict.success - before.success  # a second cube undoes a success
        if not person_waits:
            self._attempt_steps += steps
        self._lead(self._wanted_rad())

    def picture(self) -> dict[str, Any]:
        """What the cameras must know to show where everything is now."""
        layout = self.layout
        scene = {"task": layout.task.name, "seed": self._seed, "color": layout.color}
        return scene | {"qpos": self._world.data.qpos.tolist(), "step": self.steps}

    def _lead(self, goal_rad: NDArray[np.float64]) -> None:
        self._leader.set_positions_by_hand(self._leader_ticks(self._arm.to_ticks(goal_rad)))

    def _wanted_rad(self) -> NDArray[np.float64]:
        """Where the person wants the follower now, shape (6,), in [rad]."""
        joints_rad = self._world.joints_rad
        if self._attempt is not None:
            return self._attempt.goal_rad(self._attempt_steps / STEPS_PER_S, joints_rad)
        share = minimum_jerk((self.time_s - self._back_from_s) / LEAD_BACK_S)
        return self._back_from_rad + share * (self._rest.goal_rad(self.time_s, joints_rad) - self._back_from_rad)
