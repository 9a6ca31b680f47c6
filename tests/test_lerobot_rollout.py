"""`lerobot-rollout`, unmodified, on the emulated SO-101: it drives, or refuses and leaves no torque on.

One fresh process where that matters; the other cases call its main here.
"""

import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import JOINTS, run_command, train_fast
from lerobot.configs import PreTrainedConfig

from lerobot_vla_plugin.twin.cameras import CameraConfig
from lerobot_vla_plugin.twin.so101 import SO101Twin, TwinConfig

TASK = "Touch the red cube."
SWAPPED = [f"{joint}.pos" for joint in (JOINTS[1], JOINTS[0], *JOINTS[2:])]


def with_contract(checkpoint: Path, folder: Path, **changes) -> Path:
    """A copy of a checkpoint that says that it was trained on something else."""
    shutil.copytree(checkpoint, folder)
    config = PreTrainedConfig.from_pretrained(folder)
    config.contract = replace(config.contract, **changes)
    config._save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def twin(tmp_path_factory, request):
    """A running twin; a test may ask for another (width, height) of its pictures."""
    width, height = getattr(request, "param", (128, 96))
    cameras = CameraConfig(width=width, height=height)
    with SO101Twin(TwinConfig(directory=tmp_path_factory.mktemp("twin"), cameras=cameras)) as twin:
        yield twin


@pytest.fixture
def moved(twin):
    """Whether the follower was sent anything during this test."""
    before = len(twin.follower.goal_writes())
    return lambda: len(twin.follower.goal_writes()) > before


def options(twin, checkpoint, *more, robot=None, duration_s=3):
    return [
        f"--policy.path={checkpoint}", *(robot or twin.robot_arguments()),
        f"--task={TASK}", "--fps=10", f"--duration={duration_s}", "--device=cpu", *more,
    ]  # fmt: skip


def roll_out(twin, checkpoint, *more, robot=None):
    return run_command("lerobot-rollout", *options(twin, checkpoint, *more, robot=robot))


@pytest.fixture
def roll_out_here(twin, monkeypatch, patience):
    """The same in this process, where a fresh one would only cost time; gives the refusal that ended it, or ""."""
    from lerobot.scripts import lerobot_rollout as command

    def run(checkpoint, *more, robot=None) -> str:
        more = ["--return_to_initial_position=false", *more]
        # Long enough to find a wrong rate on a busy computer; a refusal ends it before.
        arguments = options(twin, checkpoint, *more, robot=robot, duration_s=15)
        monkeypatch.setattr(sys, "argv", ["lerobot-rollout", *arguments])
        try:
            command.main()
        except (ValueError, ConnectionError) as error:
            return str(error)
        return ""

    return run


def test_drives_the_arm_and_lets_go(twin, trained):
    since_s = time.monotonic()
    result = roll_out(twin, trained)
    assert result.returncode == 0, result.stderr[-3000:]
    statistics = twin.follower.goal_statistics(since_s)
    assert statistics.writes >= 20
    assert statistics.goals_in_range
    assert not twin.torque_enabled()


def test_action_tokens_drive_the_arm_too(twin, moved, twin_sized_root, roll_out_here, tmp_path):
    checkpoint = train_fast(twin_sized_root, tmp_path / "fast")
    since_s = time.monotonic()
    assert roll_out_here(checkpoint, "--duration=2") == ""
    assert moved()
    assert twin.follower.goal_statistics(since_s).goals_in_range
    assert not twin.torque_enabled()


def test_a_refusal_of_lerobot_s_own_leaves_no_torque_on(twin, trained):
    """It refuses after `connect()` and outside its try/finally: only the end of the process lets go."""
    robot = [a.replace("{front: ", "{top: ") for a in twin.robot_arguments()]
    # LeRobot's destructor asks each servo once and swallows what fails: on a busy computer a reply can come too late.
    for _ in range(3):
        result = roll_out(twin, trained, robot=robot)
        assert result.returncode != 0
        assert "Visual feature mismatch" in result.stderr
        if not twin.torque_enabled():
            return
    pytest.fail("torque was left on three times")


def test_an_observation_without_instruction(twin, trained, roll_out_here):
    assert "needs an instruction" in roll_out_here(trained, "--task=")
    assert not twin.torque_enabled()


def test_an_absent_camera(twin, trained, roll_out_here):
    robot = [a.split(", wrist: ")[0] + "}" if a.startswith("--robot.cameras") else a for a in twin.robot_arguments()]
    assert "expected the cameras" in roll_out_here(trained, robot=robot)
    assert not twin.torque_enabled()


def test_a_port_that_is_not_there(twin, trained, roll_out_here):
    robot = [a.replace(str(twin.follower_port), "/dev/no_such_port") for a in twin.robot_arguments()]
    assert "/dev/no_such_port" in roll_out_here(trained, robot=robot)


@pytest.mark.parametrize(
    ("change", "option", "message"),
    [
        ({"joint_unit": "percent"}, "", "the arm is set to degrees; run the arm with --robot.use_degrees=false"),
        ({}, "--robot.use_degrees=false", "trained in degrees, the arm is set to percent"),
        ({"joint_names": SWAPPED}, "", "in another order"),
        ({"robot_type": "koch_follower"}, "", "trained on koch_follower, this is so_follower"),
        ({"fps": 50.0}, "--fps=30", "trained at 50 actions a second, asked for"),
        ({"fps": 30.0}, "--fps=50", "run it with --fps=30"),
    ],
)
def test_what_the_checkpoint_was_not_trained_on(change, option, message, twin, moved, trained, roll_out_here, tmp_path):
    checkpoint = with_contract(trained, tmp_path / "changed", **change)
    assert message in roll_out_here(checkpoint, *filter(None, [option]))
    assert moved() == ("fps" in change)
    assert not twin.torque_enabled()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"joint_unit": "percent"}, "the arm is set to degrees; run the arm with --robot.use_degrees=false"),
        ({"joint_unit": "unknown"}, "say --policy.joint_unit=degrees or"),
        ({"joint_names": SWAPPED}, "in another order"),
        ({"cameras": {"front": [96, 128], "top": [96, 128]}}, "trained on front 128x96, top 128x96, the arm has"),
        ({"cameras": {"front": [96, 128], "wrist": [480, 640]}}, "trained on front 128x96, wrist 640x480"),
    ],
)
def test_our_follower_refuses_before_its_torque_is_on(change, message, twin, moved, trained, roll_out_here, tmp_path):
    checkpoint = with_contract(trained, tmp_path / "changed", **change)
    assert message in roll_out_here(checkpoint, robot=twin.robot_arguments(own_types=True))
    assert not moved()
    assert not twin.torque_enabled()


def test_our_follower_at_a_wrong_rate(twin, moved, trained, roll_out_here, tmp_path):
    checkpoint = with_contract(trained, tmp_path / "changed", fps=50.0)
    refusal = roll_out_here(checkpoint, "--fps=30", robot=twin.robot_arguments(own_types=True))
    assert "trained at 50 actions a second, asked for" in refusal
    assert moved()
    assert not twin.torque_enabled()


def test_an_answer_and_an_override_on_the_command_line_are_taken(twin, moved, trained, roll_out_here, tmp_path):
    checkpoint = with_contract(trained, tmp_path / "changed", joint_unit="unknown", robot_type="koch_follower")
    answers = ["--policy.joint_unit=degrees", '--policy.contract_overrides=["robot_type"]', "--duration=1"]
    assert roll_out_here(checkpoint, *answers, robot=twin.robot_arguments(own_types=True)) == ""
    assert moved()
    assert not twin.torque_enabled()


@pytest.mark.parametrize("twin", [(96, 72)], indirect=True)
def test_pictures_of_another_size(twin, trained, roll_out_here):
    assert "expected pictures of shape (3, 96, 128), got (3, 72, 96)" in roll_out_here(trained)
    assert not twin.torque_enabled()
