"""What LeRobot's robot objects show without being asked to move."""

import pytest
from lerobot.robots.bi_so_follower import BiSOFollower, BiSOFollowerConfig
from lerobot.robots.koch_follower import KochFollower, KochFollowerConfig
from lerobot.robots.so_follower import SOFollowerConfig
from test_contract import JOINTS, ForeignRobot, make_contract, make_follower

from lerobot_vla_plugin.arms.arm_facts import arm_facts, canonical_robot_type, connected_robots


@pytest.mark.parametrize(("use_degrees", "unit"), [(True, "degrees"), (False, "percent")])
def test_so101(use_degrees, unit):
    facts = arm_facts(make_follower(use_degrees=use_degrees))
    assert (facts.robot_type, facts.joint_names, facts.joint_unit) == ("so_follower", JOINTS, unit)
    assert facts.calibration_fingerprint == make_contract().calibration_fingerprint
    assert facts.cameras == {"front": (96, 128), "wrist": (96, 128)}


def test_koch(tmp_path):
    facts = arm_facts(KochFollower(KochFollowerConfig(port="/dev/none", calibration_dir=tmp_path)))
    assert (facts.robot_type, facts.joint_unit) == ("koch_follower", "percent")
    assert facts.calibration_fingerprint is None


def test_bimanual(tmp_path):
    arms = [SOFollowerConfig(port="/dev/none", use_degrees=False) for _ in range(2)]
    robot = BiSOFollower(
        BiSOFollowerConfig(calibration_dir=tmp_path, left_arm_config=arms[0], right_arm_config=arms[1])
    )
    facts = arm_facts(robot)
    assert (facts.robot_type, facts.joint_unit, len(facts.joint_names)) == ("bi_so_follower", "percent", 12)


def test_what_a_foreign_robot_hides_is_not_guessed(tmp_path):
    facts = arm_facts(ForeignRobot(tmp_path))
    assert (facts.joint_unit, facts.calibration_fingerprint, facts.cameras) == (None, None, {})


@pytest.mark.parametrize("name", ["so100", "so101_follower", "so_follower", "so101_vla_follower"])
def test_one_arm_has_many_names(name):
    assert canonical_robot_type(name) == "so_follower"
    assert canonical_robot_type(f"bi_{name}") == "bi_so_follower"
    assert canonical_robot_type("reachy2") == "reachy2"


def test_connected_robots_are_found_without_their_help(tmp_path):
    robot, idle = ForeignRobot(tmp_path), ForeignRobot(tmp_path)
    robot.connect()
    assert robot in connected_robots()
    assert idle not in connected_robots()
    robot.disconnect()
    assert robot not in connected_robots()
