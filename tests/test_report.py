"""Table, JSON and picture of a demo, made from figures that are known."""

import json

import numpy as np
import pytest
from matplotlib.image import imread

from lerobot_vla_plugin import chunk_picture
from lerobot_vla_plugin.chunk_picture import plot_chunks
from lerobot_vla_plugin.demo_steps import EvaluationSummary
from lerobot_vla_plugin.error_tables import format_errors, format_steps, verdicts
from lerobot_vla_plugin.open_loop_result import (
    HOLD_STILL,
    MEAN_ACTION,
    POLICY,
    SHUFFLED_IMAGES,
    EpisodeChunks,
    OpenLoopResult,
)
from lerobot_vla_plugin.report import DemoSummary, describe_success, format_table, write_json
from lerobot_vla_plugin.training_episodes import Standing
from lerobot_vla_plugin.training_log import TrainingLog

JOINTS = ["shoulder_pan", "elbow_flex", "gripper"]
ERRORS = {
    POLICY: np.array([1.25, 2.75, 3.0]),
    HOLD_STILL: np.array([4.0, 4.0, 4.0]),
    MEAN_ACTION: np.array([9.0, 9.0, 9.0]),
    SHUFFLED_IMAGES: np.array([5.0, 5.0, 5.0]),
}


FIGURES = {
    "n": 20,
    "successes": 12,
    "wilson_95": [0.387, 0.781],
    "median_time_to_success_s": 2.5,
    "taken": {"named": 12, "other": 5, "none": 3},
}
STEPS, FRAMES = 5, 20


def episode_of(number: int, off: dict[str, np.ndarray], standing: Standing = Standing.HELD_OUT) -> EpisodeChunks:
    """Twenty frames of three joints; each predictor is off by its own distance."""
    at = np.arange(FRAMES)[:, None] + np.arange(STEPS)
    motion = 10 * np.sin(np.arange(FRAMES + STEPS) / 3)[:, None] * np.array([1.0, 2.0, 0.0])
    predicted = {name: motion[at] + distance for name, distance in off.items()}
    return EpisodeChunks(number, standing, np.arange(FRAMES), motion[:FRAMES], at < FRAMES, motion[at], predicted)


def result_of(*episodes: EpisodeChunks) -> OpenLoopResult:
    return OpenLoopResult(
        dataset_frames=60,
        dataset_episodes=3,
        fps_hz=10,
        joints=JOINTS,
        units=["deg", "deg", "%"],
        steps=np.arange(STEPS),
        episodes=episodes,
    )


@pytest.fixture
def result() -> OpenLoopResult:
    """One held-out episode."""
    return result_of(episode_of(2, ERRORS))


@pytest.fixture
def summary(result) -> DemoSummary:
    """A whole demo."""
    evaluation = EvaluationSummary(
        figures=FIGURES,
        goal_writes=90,
        ticks_written=540,
        swing_deg={"shoulder_pan": 54.2},
        out_of_range=["elbow_flex"],
    )
    log = TrainingLog({"loss": [1.9, 0.2], "smp/s": [100, 300, 200]})
    return DemoSummary(log, evaluation, result, {"record": 12.3, "train": 45.6})


def test_the_table_shows_what_was_measured(summary):
    table = format_table(summary)
    for words in (
        "60 frames in 3 episodes",
        "200 samples/s",
        "1.900 -> 0.200",
        "540 in 90 actions",
        "all but elbow_flex",
        "54 deg",
        "12 of 20 scenes (39% to 78% with 95 % certainty), after 2.5 s; the other cube was touched first in 5",
        "record 12 s, train 46 s",
    ):
        assert words in table


def test_no_success_is_said_without_a_time():
    text = describe_success({**FIGURES, "successes": 0, "wilson_95": [0, 0.16], "median_time_to_success_s": None})
    assert text.startswith("0 of 20 scenes (0% to 16% with 95 % certainty); ")
    assert describe_success({"n": 0, "successes": 0}) == "no attempt was finished"


def test_errors_stand_under_their_predictor(result):
    lines = format_errors(result).splitlines()
    head = next(line for line in lines if POLICY in line and HOLD_STILL in line)
    pan = next(line for line in lines if "shoulder_pan [deg]" in line)
    for predictor, errors in ERRORS.items():
        end = head.index(predictor) + len(predictor)
        assert pan[:end].endswith(f"{errors[0]:.2f}")
    assert "gripper [%]" in "".join(lines)
    # two joints in degrees: (1.25 + 2.75) / 2
    assert next(line for line in lines if "mean [deg]" in line).split()[2] == "2.00"


def test_the_tail_of_the_errors_is_shown():
    distance = np.zeros((FRAMES, STEPS, 3))
    distance[:5, 0] = 7.0  # 5 of 90 steps inside the episode
    distance[5, 0] = 90.0
    lines = format_errors(result_of(episode_of(2, {**ERRORS, POLICY: distance}))).splitlines()
    row = next(line for line in lines if "shoulder_pan" in line).split()
    mean, p99, largest = map(float, row[2:5])
    assert mean == pytest.approx((5 * 7 + 90) / 90, abs=0.01)
    assert 7 < p99 < largest == 90


def test_errors_along_the_chunk_stand_under_their_step():
    grows = np.arange(STEPS)[:, None] * np.ones(3)
    rows = [line.split() for line in format_steps(result_of(episode_of(2, {**ERRORS, POLICY: grows}))).splitlines()]
    assert rows[1][3:] == ["0.00", "s", "0.10", "s", "0.20", "s", "0.30", "s", "0.40", "s"]
    assert rows[2] == ["policy", "0.00", "1.00", "2.00", "3.00", "4.00"]
    assert rows[3][-5:] == ["4.00"] * 5


def test_whether_an_episode_was_trained_on_is_said():
    text = format_errors(result_of(episode_of(2, ERRORS), episode_of(0, ERRORS, Standing.TRAINED_ON)))
    assert "40 frames of episodes 2 (not trained on), 0 (TRAINED ON)" in text


def test_verdicts_are_plain(result):
    def of(**changes: np.ndarray) -> list[str]:
        return verdicts(result_of(episode_of(2, ERRORS | {key.replace("_", " "): v for key, v in changes.items()})))

    assert of()[0] == "The policy beats both baselines."
    assert "looks at its images" in of()[1]
    assert len(of()) == 2
    assert "it may not look at them" in of(shuffled_images=ERRORS[POLICY] * 1.05)[1]
    assert "DOES NOT beat both baselines" in of(hold_still=ERRORS[POLICY] * 0.9)[0]
    assert "alone costs 0.50 deg" in of(tokenizer_alone=np.full(3, 0.5))[2]


def test_json_holds_the_figures(summary, tmp_path):
    write_json(summary, tmp_path / "summary.json")
    figures = json.loads((tmp_path / "summary.json").read_text())
    assert figures["frames"] == 60
    assert figures["training"] == {"samples_per_s": 200, "first_loss": 1.9, "last_loss": 0.2}
    assert figures["evaluation"]["figures"] == FIGURES
    errors = figures["open_loop"]["mean_absolute_error"]
    assert errors["policy"] == {"shoulder_pan": 1.25, "elbow_flex": 2.75, "gripper": 3.0, "mean": 2.0}
    assert figures["open_loop"]["beats_baselines"] is True


def test_the_picture_shows_both_lines(result, tmp_path):
    plot_chunks(result, tmp_path / "chunks.png")
    picture = imread(tmp_path / "chunks.png")[..., :3]
    assert picture.shape[0] > 500
    assert picture.shape[1] > 1000
    for color in ((1.0, 0.498, 0.055), (0.122, 0.467, 0.706)):  # tab:orange, tab:blue
        assert (np.abs(picture - np.array(color)).max(axis=2) < 0.02).sum() > 200


def test_every_joint_and_episode_has_a_panel(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(chunk_picture, "_draw_joint", lambda axes, result, *panel: drawn.append((axes, *panel)))
    episodes = [episode_of(number, ERRORS) for number in range(3)]
    plot_chunks(result_of(*episodes), tmp_path / "chunks.png")
    assert len({id(axes) for axes, _, _ in drawn}) == 9
    assert {(episode.episode, joint) for _, episode, joint in drawn} == {(e, j) for e in range(3) for j in range(3)}


def test_a_joint_that_stands_still_is_not_blown_up(result):
    from matplotlib.figure import Figure

    still = episode_of(2, {POLICY: np.full(3, 1e-9)})
    axes = Figure().subplots()
    chunk_picture._draw_joint(axes, result, still, 2)
    low, high = axes.get_ylim()
    assert high - low >= 1
