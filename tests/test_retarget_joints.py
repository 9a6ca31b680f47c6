"""Retargeted values put the encoder, or the share of the range, where the recorded ones had it."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lerobot_vla_plugin.arms.calibration import JointCalibration, example_calibration
from lerobot_vla_plugin.arms.joints import NormMode
from lerobot_vla_plugin.arms.legacy_calibration import LegacyCalibration
from lerobot_vla_plugin.arms.retarget_joints import JointSpace, joint_space, retarget_same_arm, retarget_same_kind
from lerobot_vla_plugin.arms.robot_types import DYNAMIXEL, FEETECH

FOLLOWER = example_calibration("so_follower", "so101_follower")
LEADER = example_calibration("so_leader", "so101_leader")
KOCH_LEADER = example_calibration("koch_leader", "koch_leader")

ranges = st.lists(st.integers(0, 4095), min_size=2, max_size=2, unique=True).map(sorted)
modes = st.sampled_from(NormMode)
servos = st.sampled_from([FEETECH, DYNAMIXEL])


def space(joint: JointCalibration, mode: NormMode, family=FEETECH) -> JointSpace:
    return JointSpace({"joint": joint}, {"joint": mode}, family)


def present_ticks(encoder_ticks: int, offset: int, family) -> int:
    """What a servo of one turn reports."""
    return (encoder_ticks + family.homing_sign * offset) % 4096


@given(
    family=servos,
    mode_before=modes,
    mode_after=modes,
    offsets=st.tuples(st.integers(-2047, 2047), st.integers(-2047, 2047)),
    encoder_ticks=st.integers(0, 4095),
    drive_mode=st.sampled_from([0, 1]),
)
def test_the_same_arm_keeps_its_encoder_position(
    family, mode_before: NormMode, mode_after: NormMode, offsets: tuple, encoder_ticks: int, drive_mode: int
) -> None:
    """With whole-turn ranges nothing is clamped: the recalibrated servo would read exactly this."""
    before, after = (JointCalibration(1, drive_mode, offset, 0, 4095) for offset in offsets)
    source, target = space(before, mode_before, family), space(after, mode_after, family)
    recorded = source.converter.to_units([present_ticks(encoder_ticks, offsets[0], family)])
    result = retarget_same_arm(recorded.astype(np.float32), source, target)
    assert not result.out_of_range.any()
    assert target.converter.to_ticks(result.values) == present_ticks(encoder_ticks, offsets[1], family)


@given(mode_before=modes, mode_after=modes, before=ranges, after=ranges, share=st.floats(0, 1))
def test_the_same_arm_there_and_back(
    mode_before: NormMode, mode_after: NormMode, before: list, after: list, share: float
) -> None:
    source = space(JointCalibration(1, 0, 300, *before), mode_before)
    target = space(JointCalibration(1, 1, -900, *after), mode_after)
    recorded = source.converter.to_units([before[0] + share * (before[1] - before[0])])
    there = retarget_same_arm(recorded, source, target)
    if not there.out_of_range.any() or mode_after is NormMode.DEGREES:
        back = retarget_same_arm(there.values, target, source)
        tolerance = 0.6 * 200 / (before[1] - before[0])
        assert back.values == pytest.approx(recorded, abs=tolerance)


def test_nothing_changes_under_the_same_calibration_and_unit() -> None:
    for degrees in (True, False):
        same = joint_space("so_follower", FOLLOWER, degrees=degrees)
        values = np.random.default_rng(0).uniform(1, 60, size=(4, 3, 6))
        for retarget in (retarget_same_arm, retarget_same_kind):
            result = retarget(values, same, same)
            np.testing.assert_allclose(result.values, values, atol=1e-9)
            assert result.values.shape == result.out_of_range.shape == values.shape


def test_percent_become_degrees_by_the_followers_range() -> None:
    in_percent = joint_space("so_follower", FOLLOWER, degrees=False)
    in_degrees = joint_space("so_follower", FOLLOWER, degrees=True)
    values = np.array([40.0, -25.0, 100.0, -100.0, 0.0, 70.0])
    half_widths = np.array([(joint.range_max - joint.range_min) / 2 for joint in FOLLOWER.values()])
    expected = values / 100 * half_widths * 360 / 4095
    expected[-1] = 70
    np.testing.assert_allclose(retarget_same_arm(values, in_percent, in_degrees).values, expected, atol=1e-9)


def test_what_the_target_cannot_express_is_reported() -> None:
    wide, narrow = JointCalibration(1, 0, 0, 1000, 3000), JointCalibration(1, 0, 0, 1500, 2500)
    source = space(wide, NormMode.DEGREES)
    positions = np.array([[1000], [1499], [1500], [2500], [2501], [3100]])
    for mode in (NormMode.PERCENT, NormMode.DEGREES):
        result = retarget_same_arm(source.converter.to_units(positions), source, space(narrow, mode))
        assert result.out_of_range[:, 0].tolist() == [True, True, False, False, True, True]
    np.testing.assert_array_equal(result.values, space(narrow, NormMode.DEGREES).converter.to_units(positions))


@given(family=servos, degrees=st.booleans(), before=ranges, after=ranges, percent=st.floats(-100, 100))
def test_percent_of_another_arm_stay_as_they_are(
    family, degrees: bool, before: list, after: list, percent: float
) -> None:
    """That is LeRobot's own teleoperation, whatever the two arms' drive modes."""
    source = space(JointCalibration(1, 0, 0, *before), NormMode.PERCENT, family)
    target = space(JointCalibration(1, 1, 0, *after), NormMode.PERCENT, family)
    result = retarget_same_kind([percent], source, target)
    assert result.values == pytest.approx([percent], abs=1e-9)
    assert not result.out_of_range.any()


def test_degrees_of_another_arm_stretch_with_its_range() -> None:
    source, target = (joint_space("so_follower", c, degrees=True) for c in (LEADER, FOLLOWER))
    ends = {name: (c.range_max - c.range_min) / 2 * 360 / 4095 for name, c in LEADER.items()}
    expected = [(c.range_max - c.range_min) / 2 * 360 / 4095 for c in FOLLOWER.values()]
    result = retarget_same_kind(list(ends.values()), source, target)
    np.testing.assert_allclose(result.values[:5], expected[:5])
    beyond = retarget_same_kind([1.2 * end for end in ends.values()], source, target)
    np.testing.assert_allclose(beyond.values[:5], 1.2 * np.array(expected[:5]))
    assert beyond.out_of_range.tolist() == [True] * 5 + [False]


@pytest.mark.parametrize("family", [FEETECH, DYNAMIXEL])
def test_values_of_before_june_2025_keep_their_pose(family) -> None:
    legacy = LegacyCalibration(
        {
            "homing_offset": [-2048, 3072],
            "drive_mode": [0, 1],
            "start_pos": [2015, 3098],
            "end_pos": [3087, 2024],
            "calib_mode": ["DEGREE", "DEGREE"],
            "motor_names": ["main_shoulder_pan", "main_shoulder_lift"],
        }
    )
    offsets = {"shoulder_pan": -100, "shoulder_lift": 900}
    joints = {name: JointCalibration(1, 0, offset, 0, 4095) for name, offset in offsets.items()}
    target = JointSpace(joints, dict.fromkeys(joints, NormMode.DEGREES), family)
    encoder_ticks = np.array([[2015, 3098], [3087, 2024], [40, 4000]])
    recorded = np.stack([(encoder_ticks[:, 0] - 2048) * 180 / 2048, (3072 - encoder_ticks[:, 1]) * 180 / 2048], axis=1)
    result = retarget_same_arm(recorded, legacy, target)
    expected = [[present_ticks(pan, -100, family), present_ticks(lift, 900, family)] for pan, lift in encoder_ticks]
    np.testing.assert_array_equal(target.converter.to_ticks(result.values), expected)


def test_a_servo_that_began_to_count_backwards_is_refused_for_old_values_too() -> None:
    old = {name: [value] for name, value in {"homing_offset": 0, "drive_mode": 1, "start_pos": 0, "end_pos": 9}.items()}
    legacy = LegacyCalibration(old | {"calib_mode": ["DEGREE"], "motor_names": ["elbow_flex"]})
    target = JointSpace(KOCH_LEADER, {"elbow_flex": NormMode.PERCENT}, DYNAMIXEL)
    with pytest.raises(ValueError, match="drive_mode was changed"):
        retarget_same_arm([0.0], legacy, target)


def test_a_servo_that_was_turned_round_is_refused_for_the_pose_only() -> None:
    source = joint_space("koch_leader", KOCH_LEADER, degrees=False)
    elbow = KOCH_LEADER["elbow_flex"]
    turned = joint_space("koch_leader", KOCH_LEADER | {"elbow_flex": replace(elbow, drive_mode=0)}, degrees=False)
    with pytest.raises(ValueError, match=r"\['elbow_flex'\]: the servo's drive_mode was changed"):
        retarget_same_arm(np.zeros(6), source, turned)
    np.testing.assert_allclose(retarget_same_kind(np.full(6, 30.0), source, turned).values, 30)
    # A Feetech joint is mirrored by software, so its encoder knows nothing of it.
    so = joint_space(
        "so_follower", FOLLOWER | {"elbow_flex": replace(FOLLOWER["elbow_flex"], drive_mode=1)}, degrees=False
    )
    mirrored = retarget_same_arm(np.full(6, 30.0), joint_space("so_follower", FOLLOWER, degrees=False), so)
    np.testing.assert_allclose(mirrored.values, [30, 30, -30, 30, 30, 30])


@pytest.mark.parametrize("retarget", [retarget_same_arm, retarget_same_kind])
def test_what_does_not_fit_together_is_refused(retarget) -> None:
    so, koch = joint_space("so_leader", LEADER, degrees=True), joint_space("koch_leader", KOCH_LEADER, degrees=True)
    with pytest.raises(ValueError, match="Feetech STS3215 and Dynamixel"):
        retarget(np.zeros(6), so, koch)
    backwards = joint_space("so_leader", dict(reversed(LEADER.items())), degrees=True)
    with pytest.raises(ValueError, match="same joints in the same order"):
        retarget(np.zeros(6), so, backwards)
    with pytest.raises(ValueError, match="elbow_flex: expected finite"):
        retarget([0, 0, np.nan, 0, 0, 0], so, so)
