"""What became of the episodes of an evaluation, where their cubes stood, and the figures in words."""

import json

import numpy as np
import pytest
from evaluations import REAL_ARM, change_row, write_evaluation
from test_episode_report import episode

from lerobot_vla_plugin.envs.episode import Ending
from lerobot_vla_plugin.evaluation_facts import Outcome, describe_outcome, load_evaluations, outcome
from lerobot_vla_plugin.evaluation_map import AXIS_M, reach_outline_m, scene_map
from lerobot_vla_plugin.evaluation_table import compare
from lerobot_vla_plugin.twin.scenes import REACH_M, draw_layout


def load(folder):
    (evaluation,) = load_evaluations([folder])
    return evaluation


@pytest.mark.parametrize(
    ("ending", "changes", "expected", "words"),
    [
        (Ending.SUCCESS, {}, Outcome.SUCCESS, "success after 4.0 s"),
        (Ending.TIME, {"taken": None}, Outcome.FAILURE, "time limit after 4.0 s"),
        (Ending.FAILURE, {"taken": "red"}, Outcome.FAILURE, "failure after 4.0 s"),
        (Ending.FAILURE, {"taken": "blue"}, Outcome.OTHER_CUBE, "took the blue cube, not the red one, after 4.0 s"),
        (Ending.FAILURE, REAL_ARM, Outcome.FAILURE, "failure after 4.0 s"),
        (Ending.INTERRUPTED, {"taken": "blue"}, Outcome.NOT_COUNTED, "interrupted after 4.0 s"),
        (Ending.DISCARDED, {}, Outcome.NOT_COUNTED, "discarded after 4.0 s"),
    ],
)
def test_what_became_of_an_episode(ending, changes, expected, words):
    ended = episode(0, ending, **changes)
    assert outcome(ended) is expected
    assert describe_outcome(ended) == words


def test_what_needs_a_look_comes_first(tmp_path):
    assert [e.index for e in load(write_evaluation(tmp_path)).failures_first] == [2, 1, 3, 0]


def test_pictures_by_camera_and_time(tmp_path):
    evaluation = load(write_evaluation(tmp_path))
    (tmp_path / "episode_1" / "notes.txt").write_text("no picture")
    strips = evaluation.pictures(evaluation.episodes[1])
    assert {camera: [picture.path.name for picture in strip] for camera, strip in strips.items()} == {
        camera: [f"{camera}_00000.jpg", f"{camera}_00005.jpg"] for camera in ("front", "wrist")
    }
    assert [picture.time_s for picture in strips["front"]] == [0.0, 0.5]  # 40 steps took 4 s
    assert [len(strip) for strip in evaluation.pictures(evaluation.episodes[1], 1).values()] == [1, 1]


def test_names_are_as_long_as_it_takes(tmp_path):
    folders = [write_evaluation(tmp_path / name, endings=()) for name in ("a/report", "b/report", "b/other")]
    assert [e.name for e in load_evaluations(folders[1:])] == ["report", "other"]
    assert [e.name for e in load_evaluations(folders)] == ["a/report", "b/report", "b/other"]


def test_nothing_outside_the_folder_is_opened(tmp_path):
    write_evaluation(tmp_path / "private")
    folder = write_evaluation(tmp_path / "report")
    change_row(folder, 0, frames="../private/episode_0")
    evaluation = load(folder)
    with pytest.raises(ValueError, match="outside of it"):
        evaluation.pictures(evaluation.episodes[0])


@pytest.mark.parametrize(
    "changes",
    [{"seconds": "long"}, {"success": 1}, {"index": 7}, {"ending": "unknown"}, {"extra": 1}, {"layout": []},
     {"jerk": {"commanded": "x", "measured": 1}}],
)  # fmt: skip
def test_a_damaged_line_is_an_error(tmp_path, changes):
    change_row(write_evaluation(tmp_path), 0, **changes)
    with pytest.raises(ValueError, match=r"episodes\.jsonl is damaged"):
        load(tmp_path)


@pytest.mark.parametrize("line", ["5", "[]", "{", "\udcff"])
def test_what_is_no_episode_is_an_error(tmp_path, line):
    write_evaluation(tmp_path)
    (tmp_path / "episodes.jsonl").write_bytes(f"{line}\n".encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=r"episodes\.jsonl is damaged"):
        load(tmp_path)


# The map ------------------------------------------------------------------------------------------------------------


def test_the_map_is_seen_from_above_by_the_person_behind_the_arm(tmp_path):
    evaluation = load(write_evaluation(tmp_path))
    scene = scene_map(evaluation, "pick-place")
    assert scene is not None
    assert scene.counts == dict.fromkeys(Outcome, 1)
    assert [mark.episode.index for mark in scene.marks] == [0, 3, 1, 2]
    for mark in scene.marks:
        layout = draw_layout("pick-place", mark.episode.seed)
        cube = layout.cubes[layout.color]
        assert mark.cube_m == (-cube.y_m, cube.x_m)  # what stands to the left of the arm is on the left
        assert mark.bin_m == (-layout.bin_m[1], layout.bin_m[0])
        low, high = np.array(scene.bounds_m)
        assert (low < mark.cube_m).all()
        assert (mark.cube_m < high).all()


def test_the_twin_puts_its_cubes_into_the_field():
    distances_m = np.linalg.norm(reach_outline_m() - AXIS_M, axis=1)
    np.testing.assert_allclose((distances_m.min(), distances_m.max()), REACH_M)


def test_a_task_without_bin_and_an_arm_without_places(tmp_path):
    lift = load(write_evaluation(tmp_path / "lift", "pick-lift"))
    assert {mark.bin_m for mark in scene_map(lift, "pick-lift").marks} == {None}
    assert scene_map(load(write_evaluation(tmp_path / "real", **REAL_ARM)), "pick-place") is None


@pytest.mark.parametrize(
    "layout",
    [{"cubes": {}}, {"cubes": {color: {"x_m": float("nan"), "y_m": 0} for color in ("red", "blue")}},
     {"cubes": {color: {"x_m": "far", "y_m": 0} for color in ("red", "blue")}}, {"cubes": 3}],
)  # fmt: skip
def test_a_damaged_layout_is_an_error(tmp_path, layout):
    evaluation = load(write_evaluation(tmp_path, layout=layout))
    with pytest.raises(ValueError, match=r"episodes\.jsonl is damaged: a layout"):
        scene_map(evaluation, "pick-place")


# The figures ----------------------------------------------------------------------------------------------------------


def test_the_figures_are_those_of_the_summary(tmp_path):
    evaluations = load_evaluations([write_evaluation(tmp_path / "a"), write_evaluation(tmp_path / "b", endings=())])
    rows = dict(compare(evaluations))
    figures = json.loads((tmp_path / "a" / "summary.json").read_text())["overall"]
    low, high = figures["wilson_95"]
    assert rows["succeeded"] == ["1 of 3", "0 of 0"]
    assert rows["success rate"] == [f"{figures['success']:.0%}", "–"] == ["33%", "–"]
    assert rows["95% interval (Wilson)"] == [f"{low:.0%} to {high:.0%}", "–"]
    assert rows["median time to success"] == ["4.0 s", "–"]
    assert rows["other cube taken"] == ["1 of 3", "–"]
    assert rows["interventions of the guard"] == ["2.0 an episode: speed limit 6", "–"]
    assert rows["jerk, commanded (median)"] == ["10 deg/s³", "–"]
    assert rows["control rate"][0].startswith("10.0 Hz; 95% of the intervals up to 110 ms, the longest 200 ms; 3 late")
    assert rows["not counted"] == ["interrupted 1", "0"]


def test_each_task_has_a_row_where_there_are_several(tmp_path):
    lift, place = write_evaluation(tmp_path / "lift", "pick-lift"), write_evaluation(tmp_path / "place")
    rows = dict(compare(load_evaluations([lift, place])))
    assert rows["success in pick-lift"] == ["1 of 3, 33% (6% to 79%)", "–"]
    assert "success in pick-lift" not in dict(compare(load_evaluations([lift])))
