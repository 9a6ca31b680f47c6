"""Joint units agree with LeRobot's bus on every tick, and commanding undoes reading exactly."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lerobot.motors import Motor, MotorCalibration, MotorNormMode
from lerobot.motors.encoding_utils import decode_sign_magnitude as lerobot_decode
from lerobot.motors.encoding_utils import encode_sign_magnitude as lerobot_encode
from lerobot.motors.feetech import FeetechMotorsBus

from lerobot_vla_plugin.arms import joints as units
from lerobot_vla_plugin.arms.calibration import JointCalibration

EVERY_TICK = np.arange(4096)
MODES = {
    "degrees": (MotorNormMode.DEGREES, units.ticks_to_degrees, units.degrees_to_ticks, {}),
    "percent": (MotorNormMode.RANGE_M100_100, units.ticks_to_percent, units.percent_to_ticks, {}),
    "gripper": (
        MotorNormMode.RANGE_0_100,
        units.ticks_to_percent,
        units.percent_to_ticks,
        {"gripper": True},
    ),
}
joint_calibrations = st.builds(
    lambda ends, drive_mode: JointCalibration(1, drive_mode, 0, min(ends), max(ends)),
    st.lists(st.integers(0, 4095), min_size=2, max_size=2, unique=True),
    st.sampled_from([0, 1]),
)


def _lerobot_bus(joint: JointCalibration, mode: MotorNormMode) -> FeetechMotorsBus:
    calibration = MotorCalibration(joint.id, joint.drive_mode, joint.homing_offset, joint.range_min, joint.range_max)
    return FeetechMotorsBus("/dev/null", {"joint": Motor(1, "sts3215", mode)}, {"joint": calibration})


@pytest.mark.parametrize("mode", MODES)
@given(joint=joint_calibrations)
def test_reading_equals_lerobot_on_every_tick(mode: str, joint: JointCalibration) -> None:
    norm_mode, read, _, options = MODES[mode]
    bus = _lerobot_bus(joint, norm_mode)
    sample = EVERY_TICK[:: 97 if joint.range_min else 41]
    expected = [bus._normalize({1: int(tick)})[1] for tick in sample]
    np.testing.assert_allclose(read(sample, joint, **options), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("drive_mode", [0, 1])
def test_commanding_undoes_reading_on_every_tick_even_in_float32(mode: str, drive_mode: int) -> None:
    _, read, command, options = MODES[mode]
    joint = JointCalibration(1, drive_mode, 0, 517, 3561)
    ticks = EVERY_TICK[(EVERY_TICK >= 517) & (EVERY_TICK <= 3561)]
    values = read(ticks, joint, **options).astype(np.float32)
    np.testing.assert_array_equal(command(values, joint, **options), ticks)


@pytest.mark.parametrize("mode", MODES)
@given(joint=joint_calibrations, value=st.floats(-400, 400))
def test_commanding_is_lerobots_value_rounded_and_kept_in_range(
    mode: str, joint: JointCalibration, value: float
) -> None:
    norm_mode, _, command, options = MODES[mode]
    ticks = int(command(value, joint, **options))
    assert joint.range_min <= ticks <= joint.range_max
    truncated = _lerobot_bus(joint, norm_mode)._unnormalize({1: value})[1]
    assert abs(ticks - np.clip(truncated, joint.range_min, joint.range_max)) <= 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("mode", MODES)
def test_numbers_that_are_not_finite_never_become_ticks(mode: str, bad: float) -> None:
    _, _, command, options = MODES[mode]
    with pytest.raises(ValueError, match="finite"):
        command([0.0, bad], JointCalibration(1, 0, 0, 500, 3500), **options)


@given(joint=joint_calibrations, gripper=st.booleans(), share=st.floats(0, 1))
def test_percent_and_degrees_are_inverse(joint: JointCalibration, gripper: bool, share: float) -> None:
    percent = share * 100 if gripper else share * 200 - 100
    degrees = units.percent_to_degrees(percent, joint, gripper=gripper)
    assert units.degrees_to_percent(degrees, joint, gripper=gripper) == pytest.approx(percent, abs=1e-9)


def test_functions_keep_the_shape() -> None:
    joint = JointCalibration(1, 0, 0, 500, 3500)
    assert units.percent_to_ticks(np.zeros((2, 3)), joint).shape == (2, 3)
    assert units.ticks_to_degrees(np.zeros((4, 1, 2)), joint).shape == (4, 1, 2)


@given(st.integers(1, 15), st.data())
def test_sign_magnitude_equals_lerobot_and_round_trips(sign_bit: int, data: st.DataObject) -> None:
    value = data.draw(st.integers(-(2**sign_bit) + 1, 2**sign_bit - 1))
    encoded = units.encode_sign_magnitude(value, sign_bit)
    assert encoded == lerobot_encode(value, sign_bit)
    assert units.decode_sign_magnitude(encoded, sign_bit) == value == lerobot_decode(encoded, sign_bit)


def test_sign_magnitude_works_on_arrays_of_any_integer_type() -> None:
    values = np.array([[-2047, 0], [1, 2047]])
    encoded = units.encode_sign_magnitude(values, 11)
    np.testing.assert_array_equal(encoded, [[2047 + 2048, 0], [1, 2047]])
    np.testing.assert_array_equal(units.decode_sign_magnitude(encoded.astype(np.uint16), 11), values)


def test_a_magnitude_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="2047"):
        units.encode_sign_magnitude(-2048, 11)
    with pytest.raises(ValueError, match="2047"):
        units.encode_sign_magnitude(np.array([0, 2048]), 11)
