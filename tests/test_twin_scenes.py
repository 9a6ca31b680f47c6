"""Scenes as data: a seed decides everything, and everything lies where the arm can get it."""

from itertools import combinations
from math import dist

import numpy as np
import pytest

from lerobot_vla_plugin.twin.arm_model import PAN_AXIS_M
from lerobot_vla_plugin.twin.scenes import AZIMUTH_DEG, COLORS, REACH_M, TASKS, draw_layout


def test_a_seed_decides_everything() -> None:
    assert draw_layout("pick-place", 7) == draw_layout("pick-place", 7)
    assert draw_layout("pick-place", 7) != draw_layout("pick-place", 8)


def test_the_color_that_is_named_changes_the_instruction_only() -> None:
    red, blue = (draw_layout("pick-place", 7, color) for color in ("red", "blue"))
    assert (red.cubes, red.bin_m, red.look) == (blue.cubes, blue.bin_m, blue.look)
    assert red.instruction == "Put the red cube into the bin."
    assert blue.instruction == "Put the blue cube into the bin."
    assert draw_layout("pick-place", 7) in (red, blue)


def test_tasks_share_the_places_of_a_seed_and_differ_in_words() -> None:
    layouts = [draw_layout(task, 7) for task in TASKS]
    assert all(layout.cubes == layouts[0].cubes for layout in layouts)
    assert len({layout.instruction for layout in layouts}) == len(TASKS)
    assert [layout.has_bin for layout in layouts] == [False, False, True]


def test_both_colors_are_named_about_equally_often() -> None:
    named = [draw_layout("pick-lift", seed).color for seed in range(400)]
    assert 150 < named.count("red") < 250


def test_everything_stands_in_reach_and_apart() -> None:
    for seed in range(300):
        layout = draw_layout("pick-place", seed)
        spots = [(pose.x_m, pose.y_m) for pose in layout.cubes.values()]
        for x_m, y_m in (*spots, layout.bin_m):
            assert REACH_M[0] <= np.hypot(x_m - PAN_AXIS_M, y_m) <= REACH_M[1]
            assert AZIMUTH_DEG[0] <= np.rad2deg(np.arctan2(y_m, x_m - PAN_AXIS_M)) <= AZIMUTH_DEG[1]
        assert all(dist(a, b) > 0.07 for a, b in combinations(spots, 2))
        assert all(dist(spot, layout.bin_m) > 0.105 for spot in spots)


def test_a_cube_keeps_the_name_of_its_color() -> None:
    """However the color is drawn, it is nearer to its own name than to the other."""
    for seed in range(100):
        for name, rgb in draw_layout("pick-lift", seed).look.cube_rgb.items():
            assert min(COLORS, key=lambda other, rgb=rgb: dist(COLORS[other], rgb)) == name
            assert all(0 <= value <= 1 for value in rgb)


def test_unknown_names_list_those_there_are() -> None:
    with pytest.raises(KeyError, match="pick-lift"):
        draw_layout("pick-up", 0)
    with pytest.raises(KeyError, match="blue"):
        draw_layout("pick-lift", 0, "green")
