"""A twin as judge of `lerobot-eval`'s physical arm: the same world as without servos, deterministic, one at a time."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from lerobot.cameras.zmq import ZMQCameraConfig
from lerobot.envs.utils import NEW_ROLLOUT_OPTION
from test_lerobot_rollout import with_contract

from lerobot_vla_plugin.arms.calibration import example_calibration_dir
from lerobot_vla_plugin.arms.config_followers import SO101VLAFollowerConfig
from lerobot_vla_plugin.arms.config_step_camera import StepCameraConfig
from lerobot_vla_plugin.envs.config_physical_arm import PhysicalArmConfig
from lerobot_vla_plugin.envs.episode import Ending
from lerobot_vla_plugin.envs.episode_report import read_episodes
from lerobot_vla_plugin.envs.simulated_arm import SimulatedArm
from lerobot_vla_plugin.twin.cameras import CameraConfig
from lerobot_vla_plugin.twin.control import TwinBusyError, TwinControl
from lerobot_vla_plugin.twin.hand import Attempt
from lerobot_vla_plugin.twin.kinematics import Kinematics
from lerobot_vla_plugin.twin.scenes import draw_layout
from lerobot_vla_plugin.twin.so101 import SO101Twin, TwinConfig
from lerobot_vla_plugin.twin.world import World
from lerobot_vla_plugin.twin.world_model import STEPS_PER_S

TASK, FPS, SEED = "pick-lift", 10, 100_003
BEGIN = {NEW_ROLLOUT_OPTION: True}


@pytest.fixture(scope="module")
def twin(tmp_path_factory) -> Iterator[SO101Twin]:
    """In lock-step, with the pictures that `trained` knows."""
    cameras = CameraConfig(width=128, height=96)
    folder = tmp_path_factory.mktemp("twin")
    with SO101Twin(TwinConfig(directory=folder, cameras=cameras, task=TASK, lock_step=True)) as twin:
        yield twin


def robot_config(twin, kind=StepCameraConfig, **changes) -> SO101VLAFollowerConfig:
    given = {"server_address": "127.0.0.1", "port": twin.camera_port, "width": 128, "height": 96, "fps": 20}
    cameras = {"front": kind(camera_name="front", **given)}
    folder = example_calibration_dir("so_follower")
    arm = {"port": str(twin.follower_port), "id": "so101_follower", "calibration_dir": folder, "cameras": cameras}
    return SO101VLAFollowerConfig(**{**arm, **changes})


@pytest.fixture
def make(twin, tmp_path):
    """Makes the environment of options, as `lerobot-eval` does; closed afterwards."""
    made = []

    def make(**options):
        given = {"robot": robot_config(twin), "twin": twin.config.directory, "scene": TASK, "fps": FPS}
        config = PhysicalArmConfig(**{**given, "report_dir": tmp_path / f"report{len(made)}", **options})
        made.append(config.create_envs(1)["physical_arm"][0])
        return made[-1]

    yield make
    for vector in made:
        vector.close()


def demonstrate(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """What the scripted person does to an arm without servos: the states and the actions, both (steps, 6)."""
    arm = SimulatedArm(World(visual=False))
    arm.start(draw_layout(TASK, seed))
    attempt = Attempt(arm.world, Kinematics(), np.random.default_rng(seed))
    states, actions = [], []
    while arm.verdict.taken is None and arm.world.time_s < attempt.duration_s:
        states.append(arm.read())
        goal_rad = attempt.goal_rad(arm.world.time_s, arm.world.joints_rad)
        action = arm.converter.to_units(arm.ticks.to_exact_ticks(goal_rad)).astype(np.float32)
        actions.append(arm.send(action))
        arm.advance(STEPS_PER_S // FPS)
    assert arm.verdict.success, f"the person fails at seed {seed}; take another"
    return np.array(states), np.array(actions)


def replay(vector, seed: int, actions: np.ndarray):
    """States and pictures seen, and how it ended."""
    observation, _ = vector.reset(seed=[seed], options=BEGIN)
    states, pictures = [observation["agent_pos"][0].copy()], [observation["pixels"]["front"][0].copy()]
    for action in actions:
        observation, _, terminated, truncated, info = vector.step(action[None].astype(np.float32))
        states.append(observation["agent_pos"][0].copy())
        pictures.append(observation["pixels"]["front"][0].copy())
        if terminated[0] or truncated[0]:
            break
    return np.array(states), np.array(pictures), bool(info["is_success"][0])


@pytest.fixture(scope="module")
def demonstration() -> tuple[np.ndarray, np.ndarray]:
    return demonstrate(SEED)


def test_an_arm_behind_servos_moves_as_one_without(make, demonstration, tmp_path):
    """The same actions, over the wire and through the guard, give the same joints in every step, and the same end."""
    states, actions = demonstration
    vector = make()
    seen, _, success = replay(vector, SEED, actions)
    assert success
    assert len(seen) == len(actions) + 1
    np.testing.assert_array_equal(seen[:-1], states.astype(np.float32))
    [episode] = read_episodes(tmp_path / "report0")
    layout = draw_layout(TASK, SEED)
    assert (episode.ending, episode.seed, episode.steps) == (Ending.SUCCESS, SEED, len(actions))
    assert (episode.instruction, episode.color, episode.taken) == (layout.instruction, layout.color, layout.color)
    assert episode.seconds == pytest.approx(len(actions) / FPS)
    assert episode.layout["cubes"]["red"]["x_m"] == pytest.approx(layout.cubes["red"].x_m)
    assert episode.control_rate is None
    assert vector.call("_max_episode_steps") == (round(layout.task.time_limit_s * FPS),)


def test_a_seed_gives_the_same_attempt_again(make, demonstration):
    """Bit by bit, pictures too, with another attempt in between and whatever the computer does meanwhile."""
    _, actions = demonstration
    vector = make()
    first = replay(vector, SEED, actions[:20])
    other = replay(vector, SEED + 1, actions[:10])
    again = replay(vector, SEED, actions[:20])
    for one, two in zip(first[:2], again[:2], strict=True):
        np.testing.assert_array_equal(one, two)
    assert not np.array_equal(first[1][0], other[1][0])


def test_the_other_cube_is_a_failure(make, demonstration, tmp_path):
    _, actions = demonstration
    color = {"red": "blue", "blue": "red"}[draw_layout(TASK, SEED).color]
    vector = make(color=color)
    assert replay(vector, SEED, actions)[2] is False
    [episode] = read_episodes(tmp_path / "report0")
    assert episode.ending is Ending.FAILURE
    assert (episode.color, episode.taken) == (color, draw_layout(TASK, SEED).color)
    summary = json.loads((tmp_path / "report0" / "summary.json").read_text())
    assert summary["overall"]["taken"] == {"other": 1}


def test_the_guard_counts_in_simulated_time(make, demonstration, tmp_path):
    """200 deg/s of a simulation that runs faster than its time: by the computer's clock they would be held back."""
    vector = make(episode_time_s=3.0)
    observation, _ = vector.reset(seed=[SEED], options=BEGIN)
    start = observation["agent_pos"][0]
    turn = np.array([1, 0, 0, 0, 0, 0])
    for step in range(30):
        vector.step((start + turn * 60 * np.sin(step / 3))[None])
    assert read_episodes(tmp_path / "report0")[0].interventions.keys() <= {"slow start"}


def test_a_second_evaluation_of_the_same_twin(make):
    make()
    with pytest.raises(TwinBusyError):
        make()


def test_the_twin_is_free_again_after_a_refusal(make, twin):
    with pytest.raises(ValueError, match=r"--env\.fps=7 does not divide"):
        make(fps=7)
    with pytest.raises(ValueError, match=r"type step_zmq"):
        make(robot=robot_config(twin, kind=ZMQCameraConfig))
    with TwinControl(twin.config.directory) as control:
        assert control.facts.lock_step


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"scene": "juggle"}, ValueError, r"--env\.scene=juggle is none of \['reach-touch'"),
        ({"color": "green"}, ValueError, r"--env\.color=green is none of \['red', 'blue'\]"),
        ({"twin": Path("/nowhere")}, ConnectionError, "expected a twin with tasks in /nowhere"),
    ],
)
def test_what_the_twin_does_not_have(options, error, message, make):
    with pytest.raises(error, match=message):
        make(**options)


def test_the_port_of_a_real_arm(make, twin):
    real = "/dev/ttyACM0"
    with pytest.raises(ValueError, match=rf"follower, at {twin.follower_port}, and --env\.robot\.port is {real}"):
        make(robot=robot_config(twin, port=real))


@pytest.fixture
def evaluate(twin, monkeypatch, tmp_path):
    """Run `lerobot-eval` on the twin in this process."""
    from lerobot.scripts import lerobot_eval as command

    def run(checkpoint, *more) -> None:
        robot = [option.replace("--robot.", "--env.robot.") for option in twin.robot_arguments(own_types=True)]
        options = [
            f"--policy.path={checkpoint}", "--policy.device=cpu", "--env.type=physical_arm",
            f"--env.twin={twin.config.directory}", f"--env.scene={TASK}", f"--env.fps={FPS}", "--eval.batch_size=1",
            f"--env.report_dir={tmp_path / 'report'}", f"--output_dir={tmp_path / 'eval'}", *robot, *more,
        ]  # fmt: skip
        monkeypatch.setattr(sys, "argv", ["lerobot-eval", *options])
        command.main()

    return run


def test_two_seeds_with_lerobot_eval(trained, evaluate, twin, tmp_path):
    """The rate of calls is the one of simulated time, at which the checkpoint was trained; else it would be refused."""
    evaluate(trained, "--eval.n_episodes=2", "--seed=70", "--env.episode_time_s=3")
    episodes = read_episodes(tmp_path / "report")
    assert [(episode.seed, episode.ending, episode.steps) for episode in episodes] == [
        (70, Ending.TIME, 30), (71, Ending.TIME, 30),
    ]  # fmt: skip
    assert [episode.instruction for episode in episodes] == [draw_layout(TASK, seed).instruction for seed in (70, 71)]
    assert json.loads((tmp_path / "eval" / "eval_info.json").read_text())["overall"]["pc_success"] == 0.0
    assert not twin.torque_enabled()


def test_another_rate_than_the_checkpoint_s(trained, evaluate, twin, tmp_path):
    checkpoint = with_contract(trained, tmp_path / "other", fps=30.0)
    with pytest.raises(ValueError, match=r"trained at 30 actions a second, asked for 10\.0"):
        evaluate(checkpoint, "--eval.n_episodes=1")
    assert not twin.torque_enabled()
    assert [episode.ending for episode in read_episodes(tmp_path / "report")] == [Ending.INTERRUPTED]
