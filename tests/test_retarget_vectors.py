"""Joint vectors in another unit or under another calibration: no tick is lost, and what is lost is counted."""

from dataclasses import replace

import numpy as np
from conftest import JOINTS
from hypothesis import given
from hypothesis import strategies as st
from tick_dataset import IN_DEGREES, IN_PERCENT, SO101

from lerobot_vla_plugin.arms.annotation import ArmAnnotation
from lerobot_vla_plugin.arms.calibration import JointCalibration
from lerobot_vla_plugin.arms.joints import JointConverter, joint_modes
from lerobot_vla_plugin.joint_dataset import JointFeature
from lerobot_vla_plugin.retarget_vectors import retarget_vectors


@st.composite
def one_joint_arms(draw) -> ArmAnnotation:
    low, high = sorted(draw(st.lists(st.integers(-4095, 8190), min_size=2, max_size=2, unique=True)))
    joint = JointCalibration(1, draw(st.integers(0, 1)), draw(st.integers(-2047, 2047)), low, high)
    robot_type = draw(st.sampled_from(["so_follower", "koch_follower"]))
    name = draw(st.sampled_from(["elbow_flex", "gripper"]))
    return ArmAnnotation(robot_type, "drawn", draw(st.sampled_from(["degrees", "percent"])), {name: joint})


@given(arm=one_joint_arms(), data=st.data())
def test_every_tick_of_every_calibration_survives_there_and_back(arm, data):
    (name, joint), *_ = arm.calibration.items()
    feature = JointFeature("action", 1, {name: 0})
    ticks = data.draw(st.lists(st.integers(joint.range_min, joint.range_max), min_size=1, max_size=20))
    modes = joint_modes([name], degrees=arm.joint_unit == "degrees")
    units = JointConverter(arm.calibration, modes, inverts_in_software=arm.robot_type == "so_follower")
    recorded = {"action": units.to_units(np.array(ticks)[:, None]).astype(np.float32)}
    other = replace(arm, joint_unit="percent" if arm.joint_unit == "degrees" else "degrees")
    there, _ = retarget_vectors(recorded, [feature], arm, other, same_arm=True)
    back, losses = retarget_vectors(there, [feature], other, arm, same_arm=True)
    assert there["action"].dtype == back["action"].dtype == np.float32
    assert units.to_ticks(back["action"])[:, 0].tolist() == ticks
    assert not any(loss.clamped or loss.beyond for loss in losses)


def test_an_unchanged_joint_keeps_its_bits():
    """Even where its values cannot be: a gripper below 0 is not this command's to mend."""
    feature = JointFeature("action", 7, {name: index for index, name in enumerate(JOINTS)})
    recorded = np.random.default_rng(0).uniform(-60, 60, (500, 7)).astype(np.float32)
    other = replace(IN_DEGREES, calibration={**SO101, "elbow_flex": replace(SO101["elbow_flex"], homing_offset=3)})
    new, losses = retarget_vectors({"action": recorded}, [feature], IN_DEGREES, other, same_arm=True)
    changed = np.flatnonzero((new["action"] != recorded).any(axis=0))
    assert changed.tolist() == [JOINTS.index("elbow_flex")]
    assert {loss.joint for loss in losses} == {"elbow_flex"}


def test_a_goal_beyond_half_a_turn_is_not_folded():
    """A change of unit leaves ticks alone: 190 degrees are beyond the upper end, not near the lower one."""
    feature = JointFeature("action", 6, {name: index for index, name in enumerate(JOINTS)})
    recorded = np.full((1, 6), 190, dtype=np.float32)
    recorded[0, 5] = 50
    new, losses = retarget_vectors({"action": recorded}, [feature], IN_DEGREES, IN_PERCENT, same_arm=True)
    assert new["action"].tolist() == [[100, 100, 100, 100, 100, 50]]
    assert [loss.clamped for loss in losses] == [1] * 5
