"""The fast recorder's data set is the one that `lerobot-record` would have written."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from lerobot.cameras.zmq import ZMQCameraConfig
from lerobot.datasets import LeRobotDataset, aggregate_pipeline_dataset_features, create_initial_features
from lerobot.processor import make_default_processors
from lerobot.utils.feature_utils import combine_feature_dicts

from lerobot_vla_cli.main import main
from lerobot_vla_plugin.arms.annotation import read_annotation
from lerobot_vla_plugin.arms.calibration import example_calibration, example_calibration_dir
from lerobot_vla_plugin.arms.config_followers import SO101VLAFollowerConfig
from lerobot_vla_plugin.arms.followers import SO101VLAFollower
from lerobot_vla_plugin.arms.guard import GuardConfig
from lerobot_vla_plugin.demonstrations import Demonstrator
from lerobot_vla_plugin.envs.simulated_arm import SimulatedArm, SimulatedLeader
from lerobot_vla_plugin.envs.simulated_cameras import SimulatedCameras
from lerobot_vla_plugin.fast_record import attempts, describe_failures, recorded_features
from lerobot_vla_plugin.joint_dataset import joint_features, read_info, read_vectors
from lerobot_vla_plugin.twin.scenes import draw_layout
from lerobot_vla_plugin.twin.world import World

SIZE = ["--width", "48", "--height", "32"]


def record(folder: Path, *options: str) -> int:
    return main(["record-twin", "--output", str(folder), "--episodes", "1", "--first-seed", "4", *SIZE, *options])


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("recorded") / "dataset"
    assert record(folder) == 0
    return folder


@pytest.fixture(scope="module")
def demonstrator() -> Demonstrator:
    world = World()
    arm = SimulatedArm(world)
    return Demonstrator(arm, SimulatedLeader(arm), SimulatedCameras(world, 48, 32), fps=10)


def vectors(folder: Path) -> dict[str, np.ndarray]:
    return read_vectors(folder, joint_features(read_info(folder)))


def test_lerobot_reads_what_was_demonstrated(recorded, demonstrator):
    data = LeRobotDataset("local/twin", root=recorded, video_backend="pyav")
    expected = [
        demonstrator.demonstrate(task, seed, varied_start=True) for task, seed in (("pick-lift", 4), ("pick-place", 5))
    ]
    frames = [frame for demonstration in expected for frame in demonstration.frames]
    assert (data.num_episodes, data.num_frames, data.fps) == (2, len(frames), 10)
    np.testing.assert_array_equal(vectors(recorded)["observation.state"], np.float32([f.state for f in frames]))
    np.testing.assert_array_equal(vectors(recorded)["action"], np.float32([f.action for f in frames]))
    assert [data[i]["task"] for i in (0, -1)] == [
        draw_layout("pick-lift", 4).instruction,
        draw_layout("pick-place", 5).instruction,
    ]
    for camera, picture in frames[20].pictures.items():
        stored = data[20][f"observation.images.{camera}"].permute(1, 2, 0).numpy() * 255
        assert np.abs(stored - picture).mean() < 6  # what the video loses


def test_most_demonstrations_begin_elsewhere_unless_all_shall_begin_as_evaluations_do(tmp_path):
    options = ["--tasks", "reach-touch", "--episodes", "6", "--cameras", "front"]
    assert record(tmp_path / "varied", *options) == 0
    assert record(tmp_path / "same", *options, "--same-start") == 0
    starts = {}
    for name in ("varied", "same"):
        data = LeRobotDataset("local/twin", root=tmp_path / name, video_backend="pyav")
        states = vectors(tmp_path / name)["observation.state"]
        starts[name] = states[[episode["dataset_from_index"] for episode in data.meta.episodes]]
    assert np.ptp(starts["same"], axis=0).max() == 0
    elsewhere = np.abs(starts["varied"] - starts["same"]).max(axis=1) > 5
    assert 3 <= elsewhere.sum() < 6
    assert np.ptp(starts["varied"], axis=0).min() > 3


def test_its_features_are_those_of_lerobot_record(recorded, tmp_path):
    size = {"width": 48, "height": 32, "fps": 10}
    cameras = {name: ZMQCameraConfig("127.0.0.1", 5555, camera_name=name, **size) for name in ("front", "wrist")}
    folder = example_calibration_dir("so_follower")
    robot = SO101VLAFollower(
        SO101VLAFollowerConfig(
            port=str(tmp_path / "none"), id="so101_follower", calibration_dir=folder, cameras=cameras
        )
    )
    teleop, _, observation = make_default_processors()
    expected = combine_feature_dicts(
        aggregate_pipeline_dataset_features(teleop, create_initial_features(action=robot.action_features)),
        aggregate_pipeline_dataset_features(
            observation, create_initial_features(observation=robot.observation_features)
        ),
    )
    assert recorded_features(["front", "wrist"], 48, 32) == expected
    assert read_info(recorded).robot_type == robot.name


def test_the_data_set_says_which_arm_it_is_of(recorded):
    annotation = read_annotation(recorded)
    assert annotation is not None
    assert (annotation.robot_type, annotation.joint_unit) == ("so_follower", "degrees")
    assert annotation.calibration == example_calibration("so_follower", "so101_follower")


def test_recorded_twice_it_is_the_same(recorded, tmp_path):
    assert record(tmp_path / "again") == 0
    for key, values in vectors(tmp_path / "again").items():
        np.testing.assert_array_equal(values, vectors(recorded)[key])


def test_nothing_is_overwritten_and_options_that_make_no_sense_leave_nothing(recorded, tmp_path, capsys):
    before = (recorded / "meta/info.json").stat().st_mtime_ns
    assert record(recorded) == 2
    assert "exists; name a new folder" in capsys.readouterr().err
    assert (recorded / "meta/info.json").stat().st_mtime_ns == before
    assert record(tmp_path / "new", "--fps", "11") == 2
    assert "fps must be one of" in capsys.readouterr().err
    assert record(tmp_path / "new", "--episodes", "0") == 2
    assert "expected different tasks, and of each 1 or more --episodes" in capsys.readouterr().err
    for options in (["--episodes", "1", "2", "3"], ["--tasks", "pick-lift", "pick-lift"]):
        assert record(tmp_path / "new", *options) == 2
        assert "got 1" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_some_tasks_are_done_more_often_and_all_along(demonstrator):
    made = attempts(demonstrator, {"reach-touch": 1, "pick-lift": 3}, first_seed=0)
    tasks = [attempt.verdict.layout.task.name for attempt in made if attempt.verdict.success]
    assert sorted(tasks) == ["pick-lift"] * 3 + ["reach-touch"]
    assert tasks[:2] == ["reach-touch", "pick-lift"]


def test_a_scene_out_of_reach_is_a_failure_among_others(demonstrator):
    """A hover point beside the closest cubes can be too close to the base."""
    attempt = demonstrator.demonstrate("pick-lift", 960, varied_start=True)
    assert attempt.frames == []
    assert not attempt.verdict.success
    assert "960" in describe_failures([attempt], 1)


def test_attempts_go_on_after_a_failure_and_give_up_when_most_fail(demonstrator):
    tasks = ["reach-touch", "pick-lift"]
    made = list(attempts(demonstrator, dict.fromkeys(tasks, 1), first_seed=0))
    assert [(attempt.seed, attempt.verdict.layout.task.name) for attempt in made] == [(0, tasks[0]), (1, tasks[1])]
    assert describe_failures([], 2) == "  all 2 attempts succeeded"

    arm = demonstrator._arm
    slow = SimulatedArm(arm.world, limits=GuardConfig(max_speed_deg_s=3.0))  # it gets nowhere
    failing = Demonstrator(slow, SimulatedLeader(slow), demonstrator._cameras, fps=10)
    with pytest.raises(RuntimeError, match=r"too many demonstrations failed; those that succeeded: \{.*0\}"):
        list(attempts(failing, {"reach-touch": 1}, first_seed=0))
    one = replace(made[0], verdict=replace(made[0].verdict, done=dict.fromkeys(made[0].verdict.done, ())))
    assert describe_failures([one], 3) == "  3 of 4 attempts succeeded; left out are the seeds 0 (reach-touch)"
