"""Picture of an evaluation: success by the place of the named cube, and the picture strips of some episodes."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .envs.episode import Episode
from .evaluation_facts import Evaluation, Outcome, Picture, describe_outcome
from .evaluation_map import AXIS_M, BASE_M, Place, SceneMap, reach_outline_m, scene_map
from .evaluation_table import describe_success
from .twin.scenes import COLORS

_COLUMNS = 12  # pictures of a strip
_GAP = 0.03  # of a picture's width
_WIDTH, _MAP_HEIGHT, _TITLE_HEIGHT = 13.0, 5.2, 0.25  # [inch]
_LONGEST_TITLE = 150
_MARKERS = {
    Outcome.OTHER_CUBE: {"marker": "D", "facecolors": "white", "s": 55},
    Outcome.FAILURE: {"marker": "x", "s": 60},
    Outcome.NOT_COUNTED: {"marker": "o", "facecolors": "white", "s": 60},
    Outcome.SUCCESS: {"marker": "o", "s": 60},
}


class _Strip(NamedTuple):
    """A row of the figure: an episode's pictures of one camera; no pictures where there are none."""

    title: str
    camera: str
    pictures: NDArray[np.uint8] | None
    times_s: list[float]

    @property
    def height(self) -> float:
        """In [inch]."""
        if self.pictures is None:
            return 2 * _TITLE_HEIGHT
        _, height, width, _ = self.pictures.shape
        return _WIDTH / _COLUMNS * height / width + _TITLE_HEIGHT * (2 if self.title else 1)


def plot_evaluation(evaluation: Evaluation, episodes: Sequence[Episode], path: Path) -> None:
    """Draw the maps of all tasks, and the strips of some episodes below them.

    Args:
        evaluation: The evaluation.
        episodes: Those of which the pictures are drawn.
        path: The PNG.

    Raises:
        ValueError: The report is damaged.
        OSError: A picture is damaged.
    """
    # The object interface needs no display and leaves the global state of pyplot alone.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    scenes = [scene for task in evaluation.tasks if (scene := scene_map(evaluation, task))]
    strips = [strip for episode in episodes for strip in _strips(evaluation, episode)]
    heights = [_MAP_HEIGHT] * bool(scenes) + [sum(strip.height for strip in strips)]
    figure = Figure(figsize=(_WIDTH, sum(heights) + _TITLE_HEIGHT), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    parts = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    if scenes:
        _draw_maps(parts[0], scenes)
    rows = parts[-1].subplots(len(strips), 1, squeeze=False, height_ratios=[strip.height for strip in strips])
    for axes, strip in zip(rows[:, 0], strips, strict=True):
        _draw_strip(axes, strip)
    title = f"{evaluation.name}: {describe_success(evaluation.summary['overall'])}"
    figure.suptitle(title, parse_math=False)
    figure.savefig(path)


# Maps -----------------------------------------------------------------------------------------------------------------


def _draw_maps(figure: Any, scenes: Sequence[SceneMap]) -> None:
    from matplotlib.lines import Line2D

    for axes, scene in zip(figure.subplots(1, len(scenes), squeeze=False)[0], scenes, strict=True):
        _draw_map(axes, scene)
    kinds = [kind for kind in Outcome if any(kind in scene.counts for scene in scenes)]
    keys = [Line2D([], [], ls="", color="gray", **_of_a_line(kind), label=kind.value) for kind in kinds]
    bins = [Line2D([], [], ls="", color="gray", marker="s", mfc="none", label="bin")]
    with_bins = any(mark.bin_m for scene in scenes for mark in scene.marks)
    figure.legend(handles=keys + bins * with_bins, loc="outside lower center", ncols=5)


def _draw_map(axes: Any, scene: SceneMap) -> None:
    from matplotlib.patheffects import withStroke

    (left_m, bottom_m), (right_m, top_m) = scene.bounds_m
    axes.set(xlim=(100 * left_m, 100 * right_m), ylim=(100 * bottom_m, 100 * top_m), aspect="equal")
    axes.fill(*_base_cm().T, color="lightgray")
    axes.plot(*_cm(AXIS_M), "o", color="gray", ms=4)
    axes.annotate("arm", _cm(AXIS_M), (0, -14), textcoords="offset points", ha="center", color="gray")
    axes.fill(*(100 * reach_outline_m()).T, facecolor="none", edgecolor="gray", ls="--", lw=0.8)
    for mark in scene.marks:
        color = _color(mark.episode)
        if mark.bin_m is not None:
            axes.scatter(*_cm(mark.bin_m), marker="s", s=60, facecolors="none", edgecolors=color, lw=0.8, alpha=0.5)
        edge = {"edgecolors": color} if "facecolors" in _MARKERS[mark.outcome] else {"color": color}
        axes.scatter(*_cm(mark.cube_m), linewidths=2, zorder=3, **edge, **_MARKERS[mark.outcome])
        number = axes.annotate(str(mark.episode.index), _cm(mark.cube_m), (6, 4), textcoords="offset points", zorder=4)
        number.set(fontsize=7, path_effects=[withStroke(linewidth=2, foreground="white")])
    counts = ", ".join(f"{kind} {count}" for kind, count in scene.counts.items())
    axes.set_title(f"{scene.task}: {counts}", fontsize=10, parse_math=False)
    axes.set_xlabel("to the right of the arm [cm]")
    axes.set_ylabel("away from its base [cm]")
    axes.grid(alpha=0.3)


def _of_a_line(kind: Outcome) -> dict[str, Any]:
    """A marker's look, as a legend needs it."""
    return {"marker": _MARKERS[kind]["marker"], "mfc": _MARKERS[kind].get("facecolors", "gray"), "mew": 2}


def _color(episode: Episode) -> str:
    return f"tab:{episode.color}" if episode.color in COLORS else "tab:gray"


def _cm(place_m: Place) -> Place:
    return 100 * place_m[0], 100 * place_m[1]


def _base_cm() -> NDArray[np.float64]:
    (left, bottom), (right, top) = 100 * np.array(BASE_M)
    return np.array([(left, bottom), (right, bottom), (right, top), (left, top)])


# Strips ---------------------------------------------------------------------------------------------------------------


def _strips(evaluation: Evaluation, episode: Episode) -> list[_Strip]:
    """The rows of an episode; the first one bears its title."""
    seed = "" if episode.seed is None else f", seed {episode.seed}"
    words = f"Episode {episode.index} ({episode.task}{seed}): {describe_outcome(episode)}. “{episode.instruction}”"
    title = textwrap.shorten(words, _LONGEST_TITLE, placeholder=" ...")
    cameras = evaluation.pictures(episode, _COLUMNS)
    if not cameras:
        return [_Strip(title, "", None, [])]
    return [
        _Strip(title if number == 0 else "", camera, _load(pictures), [picture.time_s for picture in pictures])
        for number, (camera, pictures) in enumerate(cameras.items())
    ]


def _load(pictures: Sequence[Picture]) -> NDArray[np.uint8]:
    """Pictures of one camera, shape (n, height, width, 3)."""
    from PIL import Image

    loaded = []
    for picture in pictures:
        try:
            loaded.append(np.asarray(Image.open(picture.path).convert("RGB")))
        except OSError as error:
            raise OSError(f"{picture.path} is damaged: {error}") from error
    if len({picture.shape for picture in loaded}) > 1:
        raise ValueError(f"the pictures in {pictures[0].path.parent} differ in size")
    return np.stack(loaded)


def _draw_strip(axes: Any, strip: _Strip) -> None:
    axes.set_title(strip.title, fontsize=10, loc="left", parse_math=False)
    axes.spines[:].set_visible(False)
    axes.set_yticks([])
    if strip.pictures is None:
        axes.set_xticks([])
        axes.text(0, 0.5, "There are no pictures of this episode.", transform=axes.transAxes, color="gray")
        return
    width = strip.pictures.shape[2]
    gap = max(1, round(_GAP * width))
    spaced = np.pad(strip.pictures, ((0, 0), (0, 0), (0, gap), (0, 0)), constant_values=255)
    axes.imshow(np.concatenate(spaced, axis=1), interpolation="nearest")
    # All strips get the room of a full one, so that all pictures are of one size.
    axes.set(xlim=(0, _COLUMNS * (width + gap)), anchor="W")
    centers = (width + gap) * np.arange(len(spaced)) + width / 2
    axes.set_xticks(centers, [f"{time_s:.1f} s" for time_s in strip.times_s], fontsize=8)
    axes.tick_params(length=0)
    axes.set_ylabel(strip.camera, parse_math=False)
