"""The judge: what has been done to which cube, and whether that is what the instruction asked for."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lerobot_vla_plugin.twin.scenes import BIN_HALF_M, BIN_HEIGHT_M, COLORS, CUBE_HALF_M, Goal, Layout
from lerobot_vla_plugin.twin.world import World
from lerobot_vla_plugin.twin.world_model import STEPS_PER_S

LIFT_M = 0.05
_DWELL_STEPS = round(0.2 * STEPS_PER_S)  # a state that is over sooner was chance
_REST_M_S = 0.02


@dataclass(frozen=True, slots=True)
class Verdict:
    """What happened up to now.

    Attributes:
        layout: The scene.
        done: What can be done to a cube -> colors of the cubes to which it was done, in that order.
    """

    layout: Layout
    done: Mapping[Goal, tuple[str, ...]]

    @property
    def taken(self) -> str | None:
        """Color of the first cube to which the task's deed was done, named or not."""
        return next(iter(self.done[self.layout.task.goal]), None)

    @property
    def success(self) -> bool:
        """Whether it was done to the named cube, and to no other."""
        return self.done[self.layout.task.goal] == (self.layout.color,)


class Judge:
    """Watches one attempt. Deeds count once they have lasted for 0.2 s, and are not forgotten.

    Args:
        layout: The scene of the attempt.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._since: dict[tuple[Goal, str], int] = {}
        self._done: dict[Goal, tuple[str, ...]] = dict.fromkeys(Goal, ())

    def look(self, world: World) -> Verdict:
        """Look at the world as it is now; ten times a second or more often.

        Args:
            world: The world, in the scene of the attempt.
        """
        fingered = world.fingered()
        for color in COLORS:
            held = color in fingered
            self._note(Goal.TOUCHED, color, held, world.steps)
            self._note(Goal.LIFTED, color, held and is_lifted(world, color), world.steps)
            self._note(Goal.PLACED, color, not held and is_in_bin(world, color), world.steps)
        return Verdict(self._layout, dict(self._done))

    def _note(self, goal: Goal, color: str, so_now: bool, step: int) -> None:
        if not so_now:
            self._since.pop((goal, color), None)
        elif step - self._since.setdefault((goal, color), step) >= _DWELL_STEPS and color not in self._done[goal]:
            self._done[goal] += (color,)


def is_lifted(world: World, color: str) -> bool:
    """Whether a cube is 5 cm higher than on the table.

    Args:
        world: The world.
        color: The cube.
    """
    return bool(world.cube_m(color)[2] > CUBE_HALF_M + LIFT_M)


def is_in_bin(world: World, color: str) -> bool:
    """Whether a cube lies between the walls of the bin, at rest.

    Args:
        world: The world.
        color: The cube.
    """
    if not world.layout.has_bin:
        return False
    *place_m, height_m = world.cube_m(color)
    inside = np.all(np.abs(np.subtract(place_m, world.layout.bin_m)) < BIN_HALF_M) and height_m < BIN_HEIGHT_M
    return bool(inside and world.cube_speed_m_s(color) < _REST_M_S)
