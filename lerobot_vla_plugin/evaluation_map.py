"""Success by the place of the named cube, seen from above as by the person behind the arm: `right` and `up`, in [m]."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .envs.episode import Episode
from .envs.episode_report import EPISODES
from .evaluation_facts import Evaluation, Outcome, outcome
from .twin.arm_model import PAN_AXIS_M
from .twin.scenes import AZIMUTH_DEG, REACH_M

Place = tuple[float, float]

BASE_M = ((-0.055, -0.05), (0.055, 0.08))  # two corners of the arm's base
AXIS_M: Place = (0.0, PAN_AXIS_M)  # about which the arm pans
_MARGIN_M = 0.03
_NEAR_M = 2.0  # no arm of this kind reaches that far


@dataclass(frozen=True, slots=True)
class Mark:
    """An episode on the map.

    Attributes:
        episode: The episode.
        outcome: What became of it.
        cube_m: Where its named cube stood.
        bin_m: Where its bin stood; None without one.
    """

    episode: Episode
    outcome: Outcome
    cube_m: Place
    bin_m: Place | None


@dataclass(frozen=True, slots=True)
class SceneMap:
    """The map of one kind of scene.

    Attributes:
        task: Name of the kind of scene.
        marks: Episodes whose scene is known; failures come last, so that they are drawn on top.
    """

    task: str
    marks: list[Mark]

    @property
    def bounds_m(self) -> tuple[Place, Place]:
        """Lower left and upper right corner of what is to be seen."""
        bins_m = [mark.bin_m for mark in self.marks if mark.bin_m is not None]
        places = [*(mark.cube_m for mark in self.marks), *bins_m, *BASE_M, *reach_outline_m()]
        low, high = np.min(places, axis=0) - _MARGIN_M, np.max(places, axis=0) + _MARGIN_M
        return (float(low[0]), float(low[1])), (float(high[0]), float(high[1]))

    @property
    def counts(self) -> dict[Outcome, int]:
        """How many episodes of the map ended how; only what there is."""
        ended = [mark.outcome for mark in self.marks]
        return {kind: ended.count(kind) for kind in Outcome if kind in ended}


def scene_map(evaluation: Evaluation, task: str) -> SceneMap | None:
    """The map of one kind of scene.

    Args:
        evaluation: The evaluation.
        task: One of its tasks.

    Returns:
        None where no episode says where things stood, as on a real arm.

    Raises:
        ValueError: A layout is damaged.
    """
    episodes = [e for e in evaluation.failures_first if e.task == task and e.layout and e.color is not None]
    try:
        marks = [_mark(episode) for episode in reversed(episodes)]
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(f"{evaluation.directory / EPISODES} is damaged: a layout lacks a place ({error})") from error
    return SceneMap(task, marks) if marks else None


def reach_outline_m() -> NDArray[np.float64]:
    """Corners of the field in which the twin puts its cubes, shape (n, 2)."""
    azimuths = np.deg2rad(np.linspace(*AZIMUTH_DEG, 41))
    arc = np.stack([np.sin(azimuths), np.cos(azimuths)], axis=1)
    near_m, far_m = REACH_M
    return np.concatenate([near_m * arc, far_m * arc[::-1]]) + AXIS_M


def _mark(episode: Episode) -> Mark:
    cube, bin_m = episode.layout["cubes"][episode.color], episode.layout.get("bin_m")
    return Mark(episode, outcome(episode), _view((cube["x_m"], cube["y_m"])), None if bin_m is None else _view(bin_m))


def _view(place_m: Any) -> Place:
    """From the arm's x (away from the base) and y (to its left)."""
    x_m, y_m = place_m
    if not max(abs(x_m), abs(y_m)) < _NEAR_M:  # NaN, too
        raise ValueError(f"{place_m} is no place in reach")
    return -y_m, x_m
