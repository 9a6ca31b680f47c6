"""Our followers on emulated buses: exact ticks, guarded goals, and a safe start and end."""

import math
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from arms_on_twins import FIRST_STEP_TICKS, LEROBOTS, OURS, START_DEG_S, TICKS_PER_DEG, ArmOnTwin, wait_for
from lerobot.robots import make_robot_from_config

import lerobot_vla_plugin
from lerobot_vla_plugin.arms.config_followers import SO101VLAFollowerConfig
from lerobot_vla_plugin.arms.followers import KochVLAFollower, SO101VLAFollower
from lerobot_vla_plugin.arms.guard import FIRST_STEP_S, GAP_S, GuardConfig
from lerobot_vla_plugin.arms.guard_report import InterventionKind

PACKAGE = str(Path(lerobot_vla_plugin.__file__).parent)
OPEN = GuardConfig(max_speed_deg_s=math.inf, max_step_deg=math.inf, start_speed_deg_s=math.inf)


@pytest.mark.parametrize(
    ("kind", "device_class", "name"),
    [("so101", SO101VLAFollower, "so_follower"), ("koch", KochVLAFollower, "koch_follower")],
)
def test_lerobot_finds_the_device_of_each_type(kind: str, device_class: type, name: str, tmp_path: Path) -> None:
    config = OURS[kind, "follower"](port="/dev/null", id="arm", calibration_dir=tmp_path)
    robot = make_robot_from_config(config)
    assert type(robot) is device_class
    assert robot.name == robot.robot_type == name


@pytest.mark.usefixtures("patience")
def test_everything_that_describes_the_arm_is_lerobots(arm: ArmOnTwin) -> None:
    ours, lerobots = arm.device(), arm.device(LEROBOTS)
    assert ours.action_features == lerobots.action_features
    assert ours.observation_features == lerobots.observation_features
    assert ours.calibration_fpath == lerobots.calibration_fpath
    assert ours.calibration == lerobots.calibration
    assert ours.bus.motors == lerobots.bus.motors


def test_the_modules_import_without_the_servo_sdks() -> None:
    absent = ["scservo_sdk", "dynamixel_sdk", "serial", "deepdiff"]
    code = (
        f"import sys, types; package = types.ModuleType('lerobot_vla_plugin'); package.__path__ = [{PACKAGE!r}]; "
        f"sys.modules.update(dict.fromkeys({absent}), lerobot_vla_plugin=package); "
        "from lerobot_vla_plugin.arms import config_followers, config_leaders; "
        "from lerobot.robots import RobotConfig; assert 'koch_vla_follower' in RobotConfig.get_known_choices(); "
        "assert 'lerobot_vla_plugin.arms.followers' not in sys.modules; "
        "from lerobot_vla_plugin.arms import followers, leaders"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_lerobots_relative_limit_is_refused_in_favour_of_the_guard() -> None:
    with pytest.raises(ValueError, match=r"max_relative_target=10.*guard\.max_step_deg"):
        SO101VLAFollowerConfig(port="/dev/null", max_relative_target=10)


def test_the_guard_is_set_from_the_command_line() -> None:
    import draccus
    from lerobot.scripts.lerobot_teleoperate import TeleoperateConfig

    robot = ["--robot.type=koch_vla_follower", "--robot.port=/dev/a", "--robot.guard.max_speed_deg_s=120"]
    teleop = ["--teleop.type=koch_vla_leader", "--teleop.port=/dev/b", "--teleop.reconnect=true"]
    config = draccus.parse(TeleoperateConfig, args=[*robot, "--robot.guard.max_step_deg=inf", *teleop])
    assert config.robot.guard == GuardConfig(max_speed_deg_s=120, max_step_deg=math.inf)
    assert (config.robot.reconnect, config.teleop.reconnect) == (False, True)


# Actions -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("degrees", [True, False])
def test_every_tick_that_was_read_can_be_commanded_exactly(arm: ArmOnTwin, degrees: bool) -> None:
    generator = np.random.default_rng(0)
    with arm.connected(use_degrees=degrees, guard=OPEN) as follower:
        for write in range(1, 31):
            ticks = {n: int(generator.integers(j.range_min, j.range_max + 1)) for n, j in arm.calibration.items()}
            arm.bus.teleport(ticks)
            read = follower.get_observation()
            stored = {name: float(np.float32(value)) for name, value in read.items()}
            sent = follower.send_action(stored)
            assert arm.goals_ticks(write) == arm.bus.registers("Goal_Position") == ticks
            assert sent == read == stored == arm.action(ticks, degrees=degrees)


def test_what_is_returned_and_written_back_is_what_the_servos_got(arm: ArmOnTwin, follower: Any) -> None:
    action = {**arm.action(arm.middle), "shoulder_lift.pos": 500.0, "gripper.pos": 51.23456, "note": "not a joint"}
    sent = follower.send_action(action)
    goals = arm.goals_ticks(1)
    assert sent == arm.action(goals)
    assert action == {**sent, "note": "not a joint"}
    assert 0 < goals["shoulder_lift"] - arm.middle["shoulder_lift"] <= FIRST_STEP_TICKS
    assert follower.guard.report.count(InterventionKind.RANGE) == 1


def test_a_far_target_is_approached_at_the_start_speed(arm: ArmOnTwin, follower: Any) -> None:
    far_ticks = 150  # 13 degrees
    target = arm.moved("elbow_flex", far_ticks)
    started_s = time.monotonic()
    while follower.send_action(arm.action(target)) != arm.action(target):
        time.sleep(0.01)
    least_s = (far_ticks / TICKS_PER_DEG - START_DEG_S * FIRST_STEP_S) / START_DEG_S
    assert time.monotonic() - started_s > least_s - 0.02
    assert wait_for(lambda: arm.bus.positions_ticks() == target)
    goals = [write.goals_ticks["elbow_flex"] for write in arm.action_writes()]
    assert np.diff([arm.middle["elbow_flex"], *goals]).min() >= 0
    # A machine that is busy may hold a command back, and so make a step longer; not further than 0.1 s are.
    assert np.diff([arm.middle["elbow_flex"], *goals]).max() <= START_DEG_S * 0.1 * TICKS_PER_DEG


def test_after_a_gap_goals_start_from_where_the_arm_stands(arm: ArmOnTwin, follower: Any) -> None:
    follower.send_action(arm.action(arm.middle))
    arm.goals_ticks(1)
    time.sleep(GAP_S + 0.05)
    pushed = arm.moved("shoulder_lift", 300)
    arm.bus.teleport(pushed)
    follower.send_action(arm.action(arm.middle))
    assert 0 < pushed["shoulder_lift"] - arm.goals_ticks(2)["shoulder_lift"] <= FIRST_STEP_TICKS


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"elbow_flex.pos": math.nan}, "elbow_flex.*finite"),
        ({"elbow.pos": 1.0}, r"unknown are \['elbow'\]"),
        ({"elbow_flex.pos": None}, "refused"),
    ],
)
def test_a_refused_action_is_not_sent(arm: ArmOnTwin, follower: Any, wrong: dict, message: str) -> None:
    follower.send_action(arm.action(arm.middle))
    arm.goals_ticks(1)
    action = {**arm.action(arm.moved("gripper", 5)), **wrong}
    given = dict(action)
    with pytest.raises(ValueError, match=message):
        follower.send_action(action)
    follower.get_observation()  # the bus answers in order: a goal before this question would have arrived
    assert len(arm.action_writes()) == 1
    assert all(action[key] is given[key] for key in given)


# LeRobot's commands --------------------------------------------------------------------------------------


def _run(monkeypatch: pytest.MonkeyPatch, name: str, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", [f"lerobot-{name}", *arguments])
    import_module(f"lerobot.scripts.lerobot_{name}").main()


def test_lerobots_commands_record_what_the_guard_sent(arm: ArmOnTwin, tmp_path: Path, monkeypatch) -> None:
    """Teleoperate, record and replay: the leader stands 40 degrees away from the follower."""
    pandas = pytest.importorskip("pandas")
    with ArmOnTwin(arm.kind, "leader") as leader:
        assert leader.bus.set_positions_by_hand({"shoulder_lift": leader.middle["shoulder_lift"] + 455})
        robot, teleop = arm.arguments(), leader.arguments()
        dataset = ["--dataset.repo_id=tests/guarded", f"--dataset.root={tmp_path / 'data'}"]
        record = ["--dataset.single_task=Reach.", "--dataset.num_episodes=1", "--dataset.episode_time_s=0.6"]
        quiet = ["--dataset.fps=30", "--dataset.push_to_hub=false", "--play_sounds=false"]
        _run(monkeypatch, "record", *robot, *teleop, *dataset, *record, *quiet)
        assert not arm.has_torque()

        (file,) = (tmp_path / "data").rglob("data/**/*.parquet")
        recorded = np.stack(pandas.read_parquet(file)["action"].to_list())
        writes = arm.action_writes()
        sent = [list(arm.action(write.goals_ticks).values()) for write in writes]
        np.testing.assert_array_equal(recorded, np.array(sent, dtype=np.float32))
        moved_deg = [
            (write.goals_ticks["shoulder_lift"] - arm.middle["shoulder_lift"]) / TICKS_PER_DEG for write in writes
        ]
        assert moved_deg[0] <= FIRST_STEP_TICKS / TICKS_PER_DEG
        assert 10 < moved_deg[-1] < 0.8 * START_DEG_S

        arm.bus.teleport(arm.middle)
        _run(monkeypatch, "replay", *robot, *dataset, "--dataset.episode=0", "--play_sounds=false")
        replayed = arm.action_writes()[len(writes) :]
        assert len(replayed) == len(writes)
        assert replayed[-1].goals_ticks == pytest.approx(writes[-1].goals_ticks, abs=30)

        _run(monkeypatch, "teleoperate", *robot, *teleop, "--fps=60", "--teleop_time_s=0.3")
        assert not arm.has_torque()
