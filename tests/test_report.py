"""Table, JSON and picture of a demo, made from figures that are known."""

import json
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.image import imread

from lerobot_vla_plugin.demo_steps import RolloutSummary
from lerobot_vla_plugin.open_loop import HOLD_STILL, MEAN_ACTION, POLICY, SHUFFLED_IMAGES, OpenLoopResult
from lerobot_vla_plugin.report import DemoSummary, format_errors, format_table, plot_chunks, verdicts, write_json
from lerobot_vla_plugin.training_log import TrainingLog

JOINTS = ["shoulder_pan", "elbow_flex", "gripper"]
ERRORS = {
    POLICY: np.array([1.25, 2.75, 3.0]),
    HOLD_STILL: np.array([4.0, 4.0, 4.0]),
    MEAN_ACTION: np.array([9.0, 9.0, 9.0]),
    SHUFFLED_IMAGES: np.array([5.0, 5.0, 5.0]),
}


@pytest.fixture
def result() -> OpenLoopResult:
    """Twenty frames of three joints; the policy is one degree off."""
    frames, steps = np.arange(20), np.arange(5)
    at = frames[:, None] + steps
    recorded = 10 * np.sin(at / 3)[..., None] * np.array([1.0, 2.0, 0.0])
    return OpenLoopResult(
        dataset_frames=60,
        dataset_episodes=3,
        episode=2,
        fps_hz=10,
        joints=JOINTS,
        units=["deg", "deg", "%"],
        frames=frames,
        steps=steps,
        predicted=recorded + 1,
        recorded=recorded,
        inside=at < 20,
        errors=ERRORS,
    )


@pytest.fixture
def summary(result) -> DemoSummary:
    """A whole demo."""
    rollout = RolloutSummary(
        goal_writes=90,
        ticks_written=540,
        rate_hz=14.9,
        wanted_hz=15,
        longest_pause_s=0.093,
        swing_deg={"shoulder_pan": 54.2},
        out_of_range=["elbow_flex"],
        touches=3,
    )
    log = TrainingLog(losses=[1.9, 0.2], samples_per_s=[100, 300, 200])
    return DemoSummary(log, rollout, result, {"record": 12.3, "train": 45.6})


def test_the_table_shows_what_was_measured(summary):
    table = format_table(summary)
    for words in (
        "60 frames in 3 episodes",
        "200 samples/s",
        "1.900 -> 0.200",
        "14.9 Hz of 15 Hz",
        "93 ms",
        "540 in 90 actions",
        "all but elbow_flex",
        "54 deg",
        "3 during the rollout",
        "record 12 s, train 46 s",
    ):
        assert words in table


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


def test_verdicts_are_plain(result):
    assert verdicts(result)[0] == "The policy beats both baselines."
    assert "looks at its images" in verdicts(result)[1]
    blind = replace(result, errors={**ERRORS, SHUFFLED_IMAGES: ERRORS[POLICY] * 1.05})
    assert "does NOT look at its images" in verdicts(blind)[1]
    worse = replace(result, errors={**ERRORS, HOLD_STILL: ERRORS[POLICY] * 0.9})
    assert "DOES NOT beat both baselines" in verdicts(worse)[0]


def test_json_holds_the_figures(summary, tmp_path):
    write_json(summary, tmp_path / "summary.json")
    figures = json.loads((tmp_path / "summary.json").read_text())
    assert figures["frames"] == 60
    assert figures["training"] == {"samples_per_s": 200, "first_loss": 1.9, "last_loss": 0.2}
    assert figures["rollout"]["longest_pause_s"] == 0.093
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


def test_a_joint_that_stands_still_is_not_blown_up(result, tmp_path):
    from matplotlib.figure import Figure

    from lerobot_vla_plugin.report import _draw_joint

    still = replace(result, predicted=result.recorded + 1e-9)
    axes = Figure().subplots()
    _draw_joint(axes, still, 2)
    low, high = axes.get_ylim()
    assert high - low >= 1
