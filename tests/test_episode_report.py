"""The report of an evaluation: nothing is lost, nothing is overwritten, and its figures are right."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from lerobot_vla_plugin.envs.episode import ControlRate, Ending, Episode, Jerk
from lerobot_vla_plugin.envs.episode_frames import EpisodeFrames
from lerobot_vla_plugin.envs.episode_report import EpisodeReport, read_episodes, wilson_interval
from lerobot_vla_plugin.envs.motion import control_rate, rms_jerk
from lerobot_vla_plugin.twin.directory import DirectoryInUseError


def episode(index: int, ending: Ending = Ending.SUCCESS, **changes) -> Episode:
    given = {
        "index": index, "task": "pick-lift", "instruction": "Pick up the red cube.",
        "success": ending is Ending.SUCCESS, "ending": ending,
        "seconds": 4.0, "steps": 40, "seed": 7, "color": "red", "taken": "red",
        "interventions": {"speed limit": 2}, "jerk": Jerk(commanded=10.0, measured=20.0),
        "control_rate": ControlRate(median_hz=10.0, p95_interval_s=0.11, longest_pause_s=0.2, late_steps=1),
        "layout": {"cubes": {"red": {"x_m": 0.2, "y_m": 0.0, "yaw_rad": 0.1}}}, "frames": f"episode_{index}",
    }  # fmt: skip
    return Episode(**{**given, **changes})


def summary(folder) -> dict:
    return json.loads((folder / "summary.json").read_text())


def test_every_episode_is_on_disk_when_it_is_added(tmp_path):
    with EpisodeReport(tmp_path / "report") as report:
        for index, ending in enumerate([Ending.SUCCESS, Ending.TIME, Ending.SUCCESS]):
            report.add(episode(index, ending))
            assert read_episodes(tmp_path / "report") == report.episodes
            assert summary(tmp_path / "report")["overall"]["n"] == index + 1


def test_the_summary_counts_what_counts(tmp_path):
    with EpisodeReport(tmp_path) as report:
        report.add(episode(0, seconds=2.0))
        report.add(episode(1, seconds=6.0, taken="red"))
        report.add(episode(2, Ending.TIME, seconds=10.0, taken="blue"))
        report.add(episode(3, Ending.FAILURE, task="pick-place", taken=None))
        report.add(episode(4, Ending.INTERRUPTED))
        report.add(episode(5, Ending.DISCARDED))
    figures = summary(tmp_path)
    assert figures["not_counted"] == {"interrupted": 1, "discarded": 1}
    overall = figures["overall"]
    assert (overall["n"], overall["successes"], overall["success"]) == (4, 2, 0.5)
    assert overall["median_time_to_success_s"] == 4.0
    assert overall["taken"] == {"named": 2, "other": 1, "none": 1}
    assert overall["interventions"] == {"speed limit": 8}
    assert overall["control_rate"]["late_steps"] == 4
    assert overall["jerk_deg_s3"] == {"commanded": 10.0, "measured": 20.0}
    assert {task: row["n"] for task, row in figures["per_task"].items()} == {"pick-lift": 3, "pick-place": 1}


def test_a_report_of_interrupted_episodes_only(tmp_path):
    with EpisodeReport(tmp_path) as report:
        report.add(episode(0, Ending.INTERRUPTED, jerk=None, control_rate=None))
    assert summary(tmp_path)["overall"]["success"] is None


def test_wilson_s_interval_against_the_formula():
    z, n, k = 1.959963984540054, 30, 26
    middle, half = k / n + z**2 / (2 * n), z * np.sqrt(k / n * (1 - k / n) / n + z**2 / (4 * n**2))
    expected = [(middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n)]
    np.testing.assert_allclose(wilson_interval(k, n), expected)
    assert wilson_interval(0, 0) is None


def test_episodes_of_another_evaluation_are_never_overwritten(tmp_path):
    with EpisodeReport(tmp_path) as report:
        report.add(episode(0))
    with pytest.raises(FileExistsError, match=r"another evaluation.*--env\.report_dir"):
        EpisodeReport(tmp_path)
    assert len(read_episodes(tmp_path)) == 1


def test_two_evaluations_at_once(tmp_path):
    with (
        EpisodeReport(tmp_path),
        pytest.raises(DirectoryInUseError, match=rf"process {os.getpid()}.*another --env\.report_dir"),
    ):
        EpisodeReport(tmp_path)
    EpisodeReport(tmp_path).close()  # nothing was added, so the folder is free again


def test_a_killed_process_leaves_its_report_and_gives_the_folder_back(tmp_path):
    code = f"""
import os, signal, sys
sys.path[:0] = {[os.path.dirname(__file__)]!r}
from pathlib import Path
from test_episode_report import EpisodeReport, episode
report = EpisodeReport(Path({str(tmp_path)!r}))
report.add(episode(0))
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    assert read_episodes(tmp_path) == [episode(0)]
    with pytest.raises(FileExistsError):
        EpisodeReport(tmp_path)


def test_a_line_that_was_cut_off_is_left_out_and_a_damaged_one_is_an_error(tmp_path):
    with EpisodeReport(tmp_path) as report:
        report.add(episode(0))
    path = tmp_path / "episodes.jsonl"
    path.write_text(path.read_text() + '{"index": 1, "ta')
    assert read_episodes(tmp_path) == [episode(0)]
    path.write_text("{}\n")
    with pytest.raises(ValueError, match=r"episodes\.jsonl is damaged"):
        read_episodes(tmp_path)
    with pytest.raises(FileNotFoundError, match="holds no"):
        read_episodes(tmp_path / "nothing")


def test_an_episode_out_of_order(tmp_path):
    with EpisodeReport(tmp_path) as report, pytest.raises(ValueError, match="expected episode 0, got 3"):
        report.add(episode(3))


def test_jerk_of_a_known_motion():
    rate_hz = 50.0
    time_s = np.arange(100) / rate_hz
    cubic_deg = np.stack([2 * time_s**3, -2 * time_s**3], axis=1)  # the third derivative is 12 everywhere
    assert rms_jerk(cubic_deg, rate_hz) == pytest.approx(12.0)
    assert rms_jerk(cubic_deg[:3], rate_hz) is None
    assert rms_jerk(np.stack([time_s**2, time_s], axis=1), rate_hz) == pytest.approx(0, abs=1e-6)


def test_the_rate_of_a_loop_with_one_pause():
    times_s = [0.0, 0.1, 0.2, 0.3, 0.8, 0.9]
    rate = control_rate(times_s, 10.0)
    assert rate is not None
    assert rate.median_hz == pytest.approx(10.0)
    assert rate.longest_pause_s == pytest.approx(0.5)
    assert rate.late_steps == 1
    assert control_rate([1.0], 10.0) is None


def test_pictures_every_half_second_and_at_the_end(tmp_path):
    from PIL import Image

    frames = EpisodeFrames(tmp_path / "episode_0", fps=10)
    picture = np.full((48, 64, 3), (200, 30, 30), np.uint8)
    for step in range(14):
        frames.add(step, {"front": picture, "wrist": picture}, last=step == 13)
    names = sorted(path.name for path in (tmp_path / "episode_0").iterdir())
    assert names == [f"{camera}_{step:05d}.jpg" for camera in ("front", "wrist") for step in (0, 5, 10, 13)]
    np.testing.assert_allclose(np.asarray(Image.open(tmp_path / "episode_0" / names[0])), picture, atol=4)
