"""Drawings of the report as SVG text: the map, the marks of outcomes, the bar of an interval.

A mark says by its shape how an episode ended and by its color which cube was named.
"""

from collections.abc import Callable
from html import escape

from .evaluation_facts import Outcome, describe_outcome
from .evaluation_map import AXIS_M, BASE_M, Mark, Place, SceneMap, reach_outline_m
from .twin.scenes import COLORS, REACH_M

_PX_PER_M = 1000.0
_MARK_PX = 7.0
_BAR_PX = (160, 14)


def draw_map(scene: SceneMap, title: str, anchor: Callable[[int], str]) -> str:
    """The map of one kind of scene; each mark leads to its episode.

    Args:
        scene: What to draw.
        title: What it shows, in words.
        anchor: Index of an episode -> the id of its place in the page.
    """
    (left_m, bottom_m), (right_m, top_m) = scene.bounds_m

    def to_px(place_m: Place) -> Place:
        return (place_m[0] - left_m) * _PX_PER_M, (top_m - place_m[1]) * _PX_PER_M

    width_px, height_px = to_px((right_m, bottom_m))
    marks = "\n".join(_linked_mark(mark, to_px, anchor(mark.episode.index)) for mark in scene.marks)
    return (
        f'<svg class="map" viewBox="0 0 {width_px:.0f} {height_px:.0f}" role="group" aria-label="{escape(title)}">\n'
        f"{_reach(to_px)}{_base(to_px)}\n{marks}\n</svg>"
    )


def draw_mark(outcome: Outcome) -> str:
    """A mark that stands in text.

    Args:
        outcome: What it stands for.
    """
    return f'<svg class="key" viewBox="-10 -10 20 20" aria-hidden="true">{_mark(outcome, (0.0, 0.0))}</svg>'


def draw_interval(rate: float, low: float, high: float) -> str:
    """A bar from 0 to 100 % with an interval and the rate in it.

    Args:
        rate: In [0, 1].
        low: Lower end of the interval.
        high: Upper end of it.
    """
    width, height = _BAR_PX
    middle = height / 2
    return (
        f'<svg class="bar" viewBox="-4 0 {width + 8} {height}" aria-hidden="true">'
        f'<path class="scale" d="M0,{middle} H{width} M0,3 V{height - 3} M{width / 2},5 V{height - 5} '
        f'M{width},3 V{height - 3}"/>'
        f'<path class="interval" d="M{low * width:.1f},{middle} H{high * width:.1f}"/>'
        f'<circle cx="{rate * width:.1f}" cy="{middle}" r="4"/></svg>'
    )


def cube_class(color: str | None) -> str:
    """CSS class of a named cube; no text from outside becomes one.

    Args:
        color: Its name.
    """
    return f"cube-{color}" if color in COLORS else "cube"


def _linked_mark(mark: Mark, to_px: Callable[[Place], Place], anchor: str) -> str:
    episode = mark.episode
    words = escape(f"Episode {episode.index}: {episode.instruction} {describe_outcome(episode)}")
    return (
        f'<a href="#{anchor}" class="{cube_class(episode.color)}" aria-label="{words}"><title>{words}</title>'
        f"{_bin(mark, to_px)}{_mark(mark.outcome, to_px(mark.cube_m))}</a>"
    )


def _mark(outcome: Outcome, place_px: Place) -> str:
    (x, y), r = place_px, _MARK_PX
    match outcome:
        case Outcome.SUCCESS:
            return f'<circle class="mark full" cx="{x:.1f}" cy="{y:.1f}" r="{r}"/>'
        case Outcome.FAILURE:
            cross = f"M{x - r:.1f},{y - r:.1f} l{2 * r},{2 * r} m0,{-2 * r} l{-2 * r},{2 * r}"
            # The transparent disc is easier to hit than two lines.
            return f'<circle class="target" cx="{x:.1f}" cy="{y:.1f}" r="{r}"/><path class="mark" d="{cross}"/>'
        case Outcome.OTHER_CUBE:
            d = 1.3 * r
            diamond = f"M{x:.1f},{y - d:.1f} l{d:.1f},{d:.1f} {-d:.1f},{d:.1f} {-d:.1f},{-d:.1f}z"
            return f'<path class="mark open" d="{diamond}"/>'
        case Outcome.NOT_COUNTED:
            return f'<circle class="mark open dashed" cx="{x:.1f}" cy="{y:.1f}" r="{r}"/>'


def _reach(to_px: Callable[[Place], Place]) -> str:
    outline = " ".join("{:.1f},{:.1f}".format(*to_px((right_m, up_m))) for right_m, up_m in reach_outline_m())
    labels = "".join(
        '<text x="{:.0f}" y="{:.0f}">{:.0f} cm</text>'.format(*to_px((0.0, AXIS_M[1] + reach_m)), reach_m * 100)
        for reach_m in REACH_M
    )
    return f'<polygon class="reach" points="{outline}"/>{labels}'


def _base(to_px: Callable[[Place], Place]) -> str:
    (left_m, bottom_m), (right_m, top_m) = BASE_M
    (left, top), (right, bottom) = to_px((left_m, top_m)), to_px((right_m, bottom_m))
    axis_x, axis_y = to_px(AXIS_M)
    return (
        f'<rect class="base" x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{bottom - top:.1f}" '
        f'rx="10"/><circle class="axis" cx="{axis_x:.1f}" cy="{axis_y:.1f}" r="4"/>'
        f'<text class="on-base" x="{axis_x:.1f}" y="{axis_y + 30:.1f}">arm</text>'
    )


def _bin(mark: Mark, to_px: Callable[[Place], Place]) -> str:
    """A small square in the middle of the bin, and the way there, which shows when one points at the mark."""
    if mark.bin_m is None:
        return ""
    (x, y), (bin_x, bin_y) = to_px(mark.cube_m), to_px(mark.bin_m)
    half = _MARK_PX
    square = f"M{bin_x - half:.1f},{bin_y - half:.1f} h{2 * half} v{2 * half} h{-2 * half}z"
    return f'<path class="bin" d="{square}"/><path class="way" d="M{x:.1f},{y:.1f} L{bin_x:.1f},{bin_y:.1f}"/>'
