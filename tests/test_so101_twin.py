"""The twin's tasks as an environment: what `lerobot-eval` asks of it, and that its scores can be believed."""

import json

import gymnasium as gym
import numpy as np
import pytest
from lerobot.envs.utils import NEW_ROLLOUT_OPTION, env_to_policy_features

from lerobot_vla_plugin.arms.contract import ContractCheck, ContractMismatchError, register_policy
from lerobot_vla_plugin.arms.contract_terms import ArmContract
from lerobot_vla_plugin.demonstrations import Demonstrator
from lerobot_vla_plugin.envs.config_so101_twin import SO101TwinConfig
from lerobot_vla_plugin.envs.episode import Ending
from lerobot_vla_plugin.envs.episode_report import EpisodeReport
from lerobot_vla_plugin.envs.simulated_arm import SimulatedArm, SimulatedLeader
from lerobot_vla_plugin.envs.simulated_cameras import SimulatedCameras
from lerobot_vla_plugin.envs.so101_twin import SO101TwinEnv, arm_of
from lerobot_vla_plugin.twin.scenes import draw_layout
from lerobot_vla_plugin.twin.world import World

SMALL = {"width": 48, "height": 32}
GENUINE = {NEW_ROLLOUT_OPTION: True}


@pytest.fixture(scope="module")
def demonstrated() -> list:
    """Frames of a demonstration of pick-lift, seed 0: what a perfect policy would do, and see."""
    world = World()
    arm, cameras = SimulatedArm(world), SimulatedCameras(world, **SMALL)
    demonstration = Demonstrator(arm, SimulatedLeader(arm), cameras, fps=10).demonstrate("pick-lift", 0)
    cameras.close()
    assert demonstration.verdict.success
    return demonstration.frames


def play(env: gym.Env, frames, seed: int = 0) -> tuple[list, dict]:
    """Send a demonstration's actions; observations and the last info."""
    observations = [env.reset(seed=seed)[0]]
    for frame in frames:
        observation, _, terminated, truncated, info = env.step(np.float32(frame.action))
        observations.append(observation)
        if terminated or truncated:
            return observations, info
    pytest.fail("the episode did not end")


def test_a_demonstration_played_back_succeeds_and_looks_the_same(demonstrated):
    env = SO101TwinEnv(SO101TwinConfig(**SMALL), "pick-lift")
    observations, info = play(env, demonstrated)
    assert info["is_success"]
    for observation, frame in zip(observations[:5], demonstrated, strict=False):
        np.testing.assert_array_equal(observation["agent_pos"], np.float32(frame.state))
        for camera, picture in frame.pictures.items():
            np.testing.assert_array_equal(observation["pixels"][camera], picture)
    env.close()


def test_the_report_says_what_happened(demonstrated, tmp_path):
    with EpisodeReport(tmp_path) as report:
        env = SO101TwinEnv(SO101TwinConfig(**SMALL), "pick-lift", report)
        _, info = play(env, demonstrated)
        env.close()
    (row,) = map(json.loads, (tmp_path / "episodes.jsonl").read_text().splitlines())
    layout = draw_layout("pick-lift", 0)
    assert (row["success"], row["ending"]) == (True, "success") == (info["is_success"], str(Ending.SUCCESS))
    assert (row["seed"], row["color"], row["taken"]) == (0, layout.color, layout.color)
    assert row["seconds"] == row["steps"] / 10
    assert row["layout"]["cubes"]["red"]["x_m"] == layout.cubes["red"].x_m
    assert {path.name for path in (tmp_path / "episode_0").iterdir()} >= {"front_00000.jpg", "wrist_00000.jpg"}
    assert row["jerk"]["commanded"] > 0


def test_taking_the_cube_that_is_not_named_ends_the_episode_as_a_failure(demonstrated):
    env = SO101TwinEnv(SO101TwinConfig(instruction="other", **SMALL), "pick-lift")
    _, info = play(env, demonstrated)
    assert not info["is_success"]
    own = draw_layout("pick-lift", 0)
    assert env.task_description != own.instruction
    assert (env.episode.ending, env.episode.taken) == (Ending.FAILURE, own.color)
    env.close()


def test_shuffled_pictures_show_another_scene_around_the_same_posture():
    true, shuffled = (
        SO101TwinEnv(SO101TwinConfig(shuffled_images=chosen, **SMALL), "pick-place") for chosen in (False, True)
    )
    for env in (true, shuffled):
        env.reset(seed=3)
        observation = [env.step(np.zeros(6, np.float32))[0] for _ in range(3)][-1]
        env.state, env.pictures = observation["agent_pos"], observation["pixels"]
    np.testing.assert_array_equal(true.state, shuffled.state)
    assert true.task_description == shuffled.task_description
    expected = World()
    arm_rad = shuffled._arm.world.joints_rad
    expected.reset(draw_layout("pick-place", 3 + 10_000_000), arm_rad)
    cameras = SimulatedCameras(expected, **SMALL)
    for camera, picture in cameras.take().items():
        np.testing.assert_array_equal(shuffled.pictures[camera], picture)
        assert not np.array_equal(true.pictures[camera], picture)
    for closing in (true, shuffled, cameras):
        closing.close()


def test_worlds_side_by_side_are_those_of_their_seeds_and_wait_for_each_other(tmp_path):
    config = SO101TwinConfig(task="reach-touch, pick-lift", report_dir=tmp_path, cameras=["front"], **SMALL)
    envs = config.create_envs(2)["so101_twin"]
    assert [env.call("task")[0] for env in envs.values()] == ["reach-touch", "pick-lift"]
    env = envs[0]
    observation, info = env.reset(seed=[5, 6], options=GENUINE)
    assert info["is_success"].tolist() == [False, False]
    assert env.call("task_description") == tuple(draw_layout("reach-touch", seed).instruction for seed in (5, 6))
    limit = env.call("_max_episode_steps")[0]
    for _ in range(limit + 2):
        observation, reward, _, _, info = env.step(observation["agent_pos"])
        assert "is_success" in info
    assert limit == 60
    assert not reward.any()
    for other in envs.values():
        other.close()
    rows = [json.loads(line) for line in (tmp_path / "episodes.jsonl").read_text().splitlines()]
    assert [(row["seed"], row["steps"], row["ending"]) for row in rows] == [
        (5, 60, "time limit"),
        (6, 60, "time limit"),
    ]


def test_a_policy_gets_the_features_of_a_recorded_data_set():
    features = env_to_policy_features(SO101TwinConfig(**SMALL))
    shapes = {key: feature.shape for key, feature in features.items()}
    assert shapes == {
        "action": (6,),
        "observation.state": (6,),
        "observation.images.front": (3, 32, 48),
        "observation.images.wrist": (3, 32, 48),
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "juggle"}, r"--env.task must be of \['reach-touch', 'pick-lift', 'pick-place'\], got \['juggle'\]"),
        ({"cameras": ["top"]}, "--env.cameras must be of"),
        ({"cameras": []}, "--env.cameras must be of"),
        ({"instruction": "none"}, "--env.instruction must be of"),
        ({"fps": 7}, "fps must be one of"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SO101TwinConfig(**options)


def check_of(**changed) -> ContractCheck:
    """What a checkpoint of ours brings, trained on the twin."""
    facts = arm_of(SO101TwinConfig(**SMALL))
    cameras = {name: list(size) for name, size in facts.cameras.items() if size}
    trained = {"robot_type": "so_follower", "joint_names": facts.joint_names, "joint_unit": "degrees", "fps": 10}
    return ContractCheck(ArmContract(**{**trained, "cameras": cameras, **changed}))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"robot_type": "koch_follower"}, "trained on koch_follower, this is so_follower"),
        ({"fps": 30}, "trained at 30 actions a second, not 10; say --env.fps=30"),
        ({"joint_unit": "percent"}, "use_degrees=false"),
        ({"cameras": {"front": [96, 128]}}, "trained on front 128x96, the arm has front 48x32"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused_whichever_comes_first(changed, message):
    (env,) = SO101TwinConfig(**SMALL).create_envs(1)["so101_twin"].values()
    register_policy(check_of())
    with pytest.raises(ContractMismatchError, match=message):
        register_policy(check_of(**changed))
    env.close()
    loaded = check_of(**changed)
    register_policy(loaded)
    with pytest.raises(ContractMismatchError, match=message):
        SO101TwinConfig(**SMALL).create_envs(1)
