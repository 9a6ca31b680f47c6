"""Joint units agree with LeRobot's two buses on every tick, and commanding undoes reading exactly."""

import timeit
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lerobot.motors import Motor, MotorCalibration, MotorNormMode, encoding_utils, motors_bus
from lerobot.motors.dynamixel import DynamixelMotorsBus
from lerobot.motors.feetech import FeetechMotorsBus

from lerobot_vla_plugin.arms import joints as units
from lerobot_vla_plugin.arms.calibration import JointCalibration, example_calibration, load_calibration
from lerobot_vla_plugin.arms.joints import JointConverter, NormMode, joint_modes

BUSES = {"feetech": (FeetechMotorsBus, "sts3215"), "dynamixel": (DynamixelMotorsBus, "xl330-m288")}
SHIPPED = {
    name: example_calibration(name, example)
    for name, example in {
        "so_follower": "so101_follower",
        "so_leader": "so101_leader",
        "koch_follower": "koch_follower",
        "koch_leader": "koch_leader",
    }.items()
}
REAL_CALIBRATIONS = sorted(Path(__file__).resolve().parents[2].glob("shared/data/calibration/*.json"))

in_one_turn = st.lists(st.integers(0, 4095), min_size=2, max_size=2, unique=True)
in_several_turns = st.lists(st.integers(-9000, 9000), min_size=2, max_size=2, unique=True)
joint_calibrations = st.builds(
    lambda ends, drive_mode: JointCalibration(1, drive_mode, 0, min(ends), max(ends)),
    in_one_turn | in_several_turns,
    st.sampled_from([0, 1]),
)
every_mode_and_bus = pytest.mark.parametrize(("mode", "brand"), list(product(NormMode, BUSES)))


def converter_of(joint: JointCalibration, mode: NormMode, brand: str = "feetech") -> JointConverter:
    return JointConverter({"joint": joint}, {"joint": mode}, inverts_in_software=brand == "feetech")


def lerobot_bus(joint: JointCalibration, mode: NormMode, brand: str):
    """LeRobot's own bus; constructing it opens no port."""
    kind, model = BUSES[brand]
    calibration = MotorCalibration(joint.id, joint.drive_mode, joint.homing_offset, joint.range_min, joint.range_max)
    return kind("", {"joint": Motor(joint.id, model, MotorNormMode(mode.value))}, {"joint": calibration})


def every_tick(joint: JointCalibration) -> np.ndarray:
    return np.arange(joint.range_min, joint.range_max + 1)


def test_modes_are_those_of_lerobot() -> None:
    assert {mode.value for mode in NormMode} == {mode.value for mode in MotorNormMode}
    assert joint_modes(["elbow_flex", "left_gripper"], degrees=True) == {
        "elbow_flex": NormMode.DEGREES,
        "left_gripper": NormMode.GRIPPER,
    }
    assert joint_modes(["elbow_flex"], degrees=False) == {"elbow_flex": NormMode.PERCENT}


@every_mode_and_bus
@pytest.mark.parametrize("robot_name", SHIPPED)
def test_reading_is_lerobots_to_the_last_bit_on_every_tick(robot_name: str, mode: NormMode, brand: str) -> None:
    for joint in SHIPPED[robot_name].values():
        bus = lerobot_bus(joint, mode, brand)
        ticks = range(joint.range_min - 40, joint.range_max + 41)
        expected = [bus._normalize({joint.id: tick})[joint.id] for tick in ticks]
        converter = converter_of(joint, mode, brand)
        np.testing.assert_array_equal(converter.to_units(np.array(ticks)[:, None])[:, 0], expected)


@every_mode_and_bus
@given(joint=joint_calibrations, ticks=st.integers(-30_000, 30_000))
def test_reading_is_lerobots_for_any_calibration(
    mode: NormMode, brand: str, joint: JointCalibration, ticks: int
) -> None:
    expected = lerobot_bus(joint, mode, brand)._normalize({1: ticks})[1]
    converter = converter_of(joint, mode, brand)
    assert converter.dict_to_units({"joint": ticks}) == {"joint": expected}
    assert converter.to_units([ticks]) == expected


@every_mode_and_bus
@given(joint=joint_calibrations, value=st.floats(allow_nan=False, allow_infinity=False, width=32))
def test_commanding_is_lerobots_value_rounded_and_kept_in_range(
    mode: NormMode, brand: str, joint: JointCalibration, value: float
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        # LeRobot's last step is `int(...)`: without it, its method returns the value before truncation.
        patch.setattr(motors_bus, "int", lambda exact: exact, raising=False)
        exact = lerobot_bus(joint, mode, brand)._unnormalize({1: value})[1]
    converter = converter_of(joint, mode, brand)
    assert converter.to_exact_ticks([value]) == exact
    expected = min(max(round(exact), joint.range_min), joint.range_max)
    assert converter.dict_to_ticks({"joint": value}) == {"joint": expected}
    assert converter.to_ticks([value]) == expected


@pytest.mark.parametrize("inverts", [True, False])
@pytest.mark.parametrize("mode", NormMode)
@given(joint=joint_calibrations)
def test_every_tick_survives_float32(mode: NormMode, inverts: bool, joint: JointCalibration) -> None:
    assert_lossless(joint, mode, inverts)


@pytest.mark.parametrize("mode", NormMode)
def test_every_tick_of_the_shipped_calibrations_survives_float32(mode: NormMode) -> None:
    for calibration in SHIPPED.values():
        for joint in calibration.values():
            for inverts, drive_mode in product([True, False], [0, 1]):
                assert_lossless(replace(joint, drive_mode=drive_mode), mode, inverts)


@pytest.mark.skipif(not REAL_CALIBRATIONS, reason="the calibrations of real arms are not part of this project")
@pytest.mark.parametrize("mode", NormMode)
def test_every_tick_of_real_calibrations_survives_float32(mode: NormMode) -> None:
    for path in REAL_CALIBRATIONS:
        for joint in load_calibration(path).values():
            assert_lossless(joint, mode, inverts=True)


def assert_lossless(joint: JointCalibration, mode: NormMode, inverts: bool) -> None:
    converter = JointConverter({"joint": joint}, {"joint": mode}, inverts_in_software=inverts)
    ticks = every_tick(joint)[:, None]
    recorded = converter.to_units(ticks).astype(np.float32)
    np.testing.assert_array_equal(converter.to_ticks(recorded), ticks)


def test_a_joint_beyond_its_range_shows_in_degrees_only() -> None:
    joint = JointCalibration(1, 0, 0, 1000, 3000)
    assert converter_of(joint, NormMode.DEGREES).to_units([3100]) == pytest.approx(1100 * 360 / 4095)
    assert converter_of(joint, NormMode.PERCENT).to_units([3100]) == 100
    assert converter_of(joint, NormMode.DEGREES).to_ticks([500.0]) == 3000


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, np.float32("nan")])
@pytest.mark.parametrize("mode", NormMode)
def test_numbers_that_are_not_finite_never_become_ticks(mode: NormMode, bad: float) -> None:
    converter = converter_of(JointCalibration(1, 0, 0, 500, 3500), mode)
    for convert in (converter.to_ticks, converter.to_exact_ticks):
        with pytest.raises(ValueError, match="joint: expected finite"):
            convert([[0.0], [bad]])
    with pytest.raises(ValueError, match="joint: expected finite"):
        converter.dict_to_ticks({"joint": bad})


def test_one_value_and_many_have_one_result() -> None:
    calibration = SHIPPED["koch_leader"]
    for degrees, inverts in product([True, False], repeat=2):
        modes = joint_modes(calibration, degrees=degrees)
        converter = JointConverter(calibration, modes, inverts_in_software=inverts)
        values = np.random.default_rng(0).uniform(-130, 130, size=(5, 4, 6))
        ticks = converter.to_ticks(values)
        assert ticks.dtype == np.int64
        assert ticks.shape == values.shape
        one = dict(zip(converter.names, values[2, 1].tolist(), strict=True))
        assert list(converter.dict_to_ticks(one).values()) == ticks[2, 1].tolist()
        read = converter.dict_to_units(converter.dict_to_ticks(one))
        assert list(read.values()) == converter.to_units(ticks)[2, 1].tolist()


def test_a_converter_takes_any_subset_and_names_what_it_does_not_know() -> None:
    calibration = SHIPPED["so_follower"]
    converter = JointConverter(calibration, joint_modes(calibration, degrees=True), inverts_in_software=True)
    assert converter.names == tuple(calibration)
    assert list(converter.dict_to_ticks({"gripper": 0.0})) == ["gripper"]
    with pytest.raises(ValueError, match=r"unknown joint 'elbow'.*elbow_flex"):
        converter.dict_to_ticks({"elbow": 0.0})
    with pytest.raises(ValueError, match=r"unknown joint 'elbow'.*elbow_flex"):
        converter.dict_to_units({"elbow": 0})
    with pytest.raises(ValueError, match=r"expected 6 joints.*\(2, 5\)"):
        converter.to_ticks(np.zeros((2, 5)))
    with pytest.raises(ValueError, match=r"no calibration for \['elbow'\]"):
        JointConverter(calibration, joint_modes(["elbow"], degrees=True), inverts_in_software=True)


def test_six_joints_both_ways_take_under_20_microseconds() -> None:
    calibration = SHIPPED["so_follower"]
    converter = JointConverter(calibration, joint_modes(calibration, degrees=False), inverts_in_software=True)
    action = dict.fromkeys(calibration, 12.5)
    runs_s = timeit.repeat(lambda: converter.dict_to_units(converter.dict_to_ticks(action)), number=200, repeat=50)
    assert min(runs_s) / 200 < 20e-6


@given(joint=joint_calibrations, gripper=st.booleans(), value=st.floats(-120, 120))
def test_functions_of_one_joint_are_the_converter(joint: JointCalibration, gripper: bool, value: float) -> None:
    percent = converter_of(joint, NormMode.GRIPPER if gripper else NormMode.PERCENT)
    degrees = converter_of(joint, NormMode.DEGREES)
    ticks = units.percent_to_ticks(value, joint, gripper=gripper)
    assert ticks == percent.to_ticks([value])
    assert units.ticks_to_percent(ticks, joint, gripper=gripper) == percent.to_units([ticks])
    assert units.degrees_to_ticks(value, joint) == degrees.to_ticks([value])
    assert units.ticks_to_degrees(ticks, joint) == degrees.to_units([ticks])


def test_functions_keep_the_shape() -> None:
    joint = JointCalibration(1, 0, 0, 500, 3500)
    assert units.percent_to_ticks(np.zeros((2, 3)), joint).shape == (2, 3)
    assert units.ticks_to_degrees(np.zeros((4, 1, 2)), joint).shape == (4, 1, 2)


@given(st.integers(1, 15), st.data())
def test_sign_magnitude_equals_lerobot_and_round_trips(sign_bit: int, data: st.DataObject) -> None:
    value = data.draw(st.integers(-(2**sign_bit) + 1, 2**sign_bit - 1))
    encoded = units.encode_sign_magnitude(value, sign_bit)
    assert encoded == encoding_utils.encode_sign_magnitude(value, sign_bit)
    assert (
        units.decode_sign_magnitude(encoded, sign_bit)
        == value
        == encoding_utils.decode_sign_magnitude(encoded, sign_bit)
    )


@given(st.integers(1, 4), st.data())
def test_twos_complement_equals_lerobot_and_round_trips(n_bytes: int, data: st.DataObject) -> None:
    half = 1 << (8 * n_bytes - 1)
    value = data.draw(st.integers(-half, half - 1))
    encoded = units.encode_twos_complement(value, n_bytes)
    assert encoded == encoding_utils.encode_twos_complement(value, n_bytes)
    assert (
        units.decode_twos_complement(encoded, n_bytes)
        == value
        == encoding_utils.decode_twos_complement(encoded, n_bytes)
    )


def test_registers_work_on_arrays_of_any_integer_type() -> None:
    values = np.array([[-2047, 0], [1, 2047]])
    encoded = units.encode_sign_magnitude(values, 11)
    np.testing.assert_array_equal(encoded, [[2047 + 2048, 0], [1, 2047]])
    np.testing.assert_array_equal(units.decode_sign_magnitude(encoded.astype(np.uint16), 11), values)
    encoded = units.encode_twos_complement(values, 4)
    np.testing.assert_array_equal(encoded, [[2**32 - 2047, 0], [1, 2047]])
    np.testing.assert_array_equal(units.decode_twos_complement(encoded.astype(np.uint32), 4), values)


@pytest.mark.parametrize(
    ("encode", "size", "bad", "limit"),
    [
        (units.encode_sign_magnitude, 11, -2048, "2047"),
        (units.encode_sign_magnitude, 11, np.array([0, 2048]), "2047"),
        (units.encode_twos_complement, 2, 32768, "-32768..32767"),
        (units.encode_twos_complement, 2, np.array([0, -32769]), "-32768..32767"),
    ],
)
def test_a_number_that_does_not_fit_its_register_is_refused(encode: Callable, size: int, bad, limit: str) -> None:
    with pytest.raises(ValueError, match=limit):
        encode(bad, size)
