"""Where a twin's tasks happen: a world behind the follower's servos, a judge, and a person at the leader."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lerobot_vla_plugin.twin.bus import ServoBus
from lerobot_vla_plugin.twin.driven_arm import DrivenArm
from lerobot_vla_plugin.twin.hand import Attempt
from lerobot_vla_plugin.twin.judge import Judge, Verdict
from lerobot_vla_plugin.twin.kinematics import Kinematics
from lerobot_vla_plugin.twin.scenes import Layout, draw_layout
from lerobot_vla_plugin.twin.world import START_RAD, World
from lerobot_vla_plugin.twin.world_model import STEPS_PER_S

_STEPS_A_LOOK = 30  # the judge looks ten times a second or more often


class Workplace:
    """One scene after the other, for whoever says when.

    Args:
        world: The world.
        arm: Its arm, as the follower's servos move it.
        leader: Bus of the leader.
        leader_ticks: Where the leader must stand so that LeRobot brings the follower to positions in [ticks].

    Attributes:
        steps: Steps that the world has made, in all scenes.
        layout: The scene.
        verdict: What has been done in it.
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
        self._kinematics = Kinematics()
        self.steps = self._first_step = 0

    @property
    def time_s(self) -> float:
        """Simulated time since the twin's start, in [s]."""
        return self.steps / STEPS_PER_S

    @property
    def scene_s(self) -> float:
        """Simulated time since the scene began, in [s]."""
        return (self.steps - self._first_step) / STEPS_PER_S

    def lay(self, task: str, seed: int, color: str | None = None) -> None:
        """Lay a scene; the arm stands at its start posture, its goals too, and so does the leader.

        Args:
            task: As for `draw_layout`.
            seed: As for `draw_layout`; decides the person's motion, too.
            color: As for `draw_layout`.

        Raises:
            KeyError: There is no such task or color.
        """
        self.layout = draw_layout(task, seed, color)
        self._picture = {"task": task, "seed": seed, "color": self.layout.color}
        self._arm.reset(self.layout, START_RAD)
        self.steps += 1  # else a picture of the scene before could pass for one of this scene
        self._first_step = self.steps
        self._judge = Judge(self.layout)
        self.verdict = self._judge.look(self._world)
        self._attempt = Attempt(self._world, self._kinematics, np.random.default_rng(seed))
        self._lead(START_RAD)

    def run(self, steps: int) -> None:
        """Let time pass; the leader then is where the person holds it at that moment.

        Args:
            steps: How many.
        """
        for start in range(0, steps, _STEPS_A_LOOK):
            count = min(_STEPS_A_LOOK, steps - start)
            self._arm.step(count)
            self.steps += count
            self.verdict = self._judge.look(self._world)
        self._lead(self._attempt.goal_rad(self.scene_s, self._world.joints_rad))

    def picture(self) -> dict[str, Any]:
        """What the cameras must know to show where everything is now."""
        return self._picture | {"qpos": self._world.data.qpos.tolist(), "step": self.steps}

    def _lead(self, goal_rad: NDArray[np.float64]) -> None:
        self._leader.set_positions_by_hand(self._leader_ticks(self._arm.to_ticks(goal_rad)))
