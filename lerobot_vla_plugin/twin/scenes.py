"""Scenes as data: what the task is, which cube it is about, where things stand, and in which light.

Everything is drawn from one seed, in numbers that a compiled model takes as they are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import dist

import numpy as np

from lerobot_vla_plugin.twin.arm_model import PAN_AXIS_M
from lerobot_vla_plugin.twin.stage import TABLE_RGB

COLORS = {"red": (0.9, 0.05, 0.05), "blue": (0.05, 0.15, 0.9)}
CUBE_HALF_M = 0.0175
CUBE_KG = 0.03
BIN_HALF_M = 0.05  # inside, from the middle to a wall
BIN_HEIGHT_M = 0.035

# Where the arm grasps reliably, as seen from the axis about which it pans.
REACH_M = (0.12, 0.26)
AZIMUTH_DEG = (-50.0, 50.0)
_BIN_REACH_M = (0.17, 0.24)
_CUBES_APART_M = 0.07  # the open jaws fit between
_BIN_APART_M = 0.105


class Goal(StrEnum):
    """What a task asks to be done to its cube."""

    TOUCHED = "touched"
    LIFTED = "lifted"
    PLACED = "placed"


@dataclass(frozen=True, slots=True)
class Task:
    """A kind of scene.

    Attributes:
        name: How commands call it.
        goal: What has to happen to the named cube, and to no other.
        template: The instruction, with a gap for the color.
        time_limit_s: When an attempt has failed, in [s]; the scripted person needs about half of it.
        episode_s: Length of a recorded episode that holds a whole attempt of that person, in [s].
    """

    name: str
    goal: Goal
    template: str
    time_limit_s: float
    episode_s: float


TASKS = {
    task.name: task
    for task in (
        Task("reach-touch", Goal.TOUCHED, "Touch the {color} cube.", 6.0, 4.0),
        Task("pick-lift", Goal.LIFTED, "Pick up the {color} cube.", 10.0, 6.0),
        Task("pick-place", Goal.PLACED, "Put the {color} cube into the bin.", 14.0, 8.0),
    )
}


@dataclass(frozen=True, slots=True)
class CubePose:
    """Where a cube stands on the table.

    Attributes:
        x_m: Away from the base, in [m].
        y_m: To the left of the arm, in [m].
        yaw_rad: Turn about the vertical, in [rad].
    """

    x_m: float
    y_m: float
    yaw_rad: float


@dataclass(frozen=True, slots=True)
class Look:
    """Colors and light, each number in [0, 1] but the direction.

    Attributes:
        cube_rgb: Name of a color -> the cube's actual one.
        table_rgb: Color of the table.
        light_direction: Where the light goes, shape (3,).
        light: Brightness of the light.
        headlight: Brightness of the light at the camera.
        ambient: Brightness from everywhere.
    """

    cube_rgb: Mapping[str, tuple[float, ...]]
    table_rgb: tuple[float, ...]
    light_direction: tuple[float, ...]
    light: float
    headlight: float
    ambient: float


@dataclass(frozen=True, slots=True)
class Layout:
    """One scene, complete.

    Attributes:
        task: What is to be done.
        color: Name of the cube to do it to.
        cubes: Name of a color -> where that cube stands.
        bin_m: Middle of the bin on the table, (x, y) in [m]; there only where the task needs it.
        look: Colors and light.
    """

    task: Task
    color: str
    cubes: Mapping[str, CubePose]
    bin_m: tuple[float, float]
    look: Look

    @property
    def instruction(self) -> str:
        """What the person says."""
        return self.task.template.format(color=self.color)

    @property
    def has_bin(self) -> bool:
        """Whether the bin stands on the table."""
        return self.task.goal is Goal.PLACED


def draw_layout(task: str, seed: int, color: str | None = None) -> Layout:
    """Draw a scene.

    Args:
        task: One of `TASKS`.
        seed: Decides places, colors, light and, unless given, the named cube. All tasks share a seed's places.
        color: The cube to name instead, one of `COLORS`; everything else stays as the seed has it.

    Raises:
        KeyError: There is no such task or color; the message lists those there are.
    """
    if task not in TASKS:
        raise KeyError(f"no task {task!r}; there are {list(TASKS)}")
    if color is not None and color not in COLORS:
        raise KeyError(f"no cube of color {color!r}; there are {list(COLORS)}")
    rng = np.random.default_rng(seed)
    drawn_color = list(COLORS)[rng.integers(len(COLORS))]
    cubes, bin_m = _draw_places(rng)
    # A generator of its own, so that a change to the light leaves every seed's places alone.
    look = _draw_look(np.random.default_rng((seed, 1)))
    return Layout(TASKS[task], color or drawn_color, cubes, bin_m, look)


def _draw_places(rng: np.random.Generator) -> tuple[dict[str, CubePose], tuple[float, float]]:
    while True:  # two draws of three keep their distances, so it ends soon
        bin_m = _draw_spot(rng, _BIN_REACH_M)
        spots = [_draw_spot(rng, REACH_M) for _ in COLORS]
        far_from_bin = all(dist(spot, bin_m) > _BIN_APART_M for spot in spots)
        if far_from_bin and dist(*spots) > _CUBES_APART_M:
            break
    yaws_rad = rng.uniform(-np.pi, np.pi, len(COLORS))
    poses = [CubePose(*spot, float(yaw_rad)) for spot, yaw_rad in zip(spots, yaws_rad, strict=True)]
    return dict(zip(COLORS, poses, strict=True)), bin_m


def _draw_spot(rng: np.random.Generator, reach_m: tuple[float, float]) -> tuple[float, float]:
    distance_m, azimuth_rad = rng.uniform(*reach_m), np.deg2rad(rng.uniform(*AZIMUTH_DEG))
    return (float(PAN_AXIS_M + distance_m * np.cos(azimuth_rad)), float(distance_m * np.sin(azimuth_rad)))


def _draw_look(rng: np.random.Generator) -> Look:
    return Look(
        cube_rgb={name: _shifted(rng, rgb) for name, rgb in COLORS.items()},
        table_rgb=_shifted(rng, TABLE_RGB),
        light_direction=(*rng.uniform(-0.5, 0.5, 2).tolist(), -1.0),
        light=rng.uniform(0.3, 0.6),
        headlight=rng.uniform(0.05, 0.25),
        ambient=rng.uniform(0.3, 0.5),
    )


def _shifted(rng: np.random.Generator, rgb: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(np.clip(np.add(rgb, rng.uniform(-0.08, 0.08, 3)), 0, 1).tolist())
