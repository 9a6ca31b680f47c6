"""Calibrations of before June 2025: their values are converted exactly, and what they do not say is not guessed."""

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lerobot_vla_plugin.arms.calibration import JointCalibration, load_calibration
from lerobot_vla_plugin.arms.legacy_calibration import LegacyCalibration, current_joint_name, load_legacy_calibration
from lerobot_vla_plugin.arms.robot_types import JOINT_NAMES

REAL_FILES = sorted(Path(__file__).resolve().parents[2].glob("shared/data/calibration/legacy_*.json"))

# As LeRobot's own procedure left them: offsets are whole quarters of a turn; shoulder_lift and wrist_roll mirrored.
SO100 = {
    "homing_offset": [-2048, 3072, -1024, -2048, 2048, -2048],
    "drive_mode": [0, 1, 0, 0, 1, 0],
    "start_pos": [2015, 3098, 1071, 2093, 2033, 2021],
    "end_pos": [3087, 2024, 2131, 3122, 1024, 3377],
    "calib_mode": ["DEGREE"] * 5 + ["LINEAR"],
    "motor_names": list(JOINT_NAMES),
}
RANGES = {"range_min": [760, 900, 840, 820, 0, 2021], "range_max": [3380, 3270, 3090, 3200, 4095, 3377]}
KOCH = {
    "homing_offset": [2048, 3072, 0, -1024, 2048, 2048],
    "drive_mode": [1, 1, 0, 1, 0, 1],
    "start_pos": [2060, 3035, 40, -1010, -2075, 2104],
    "end_pos": [1032, 2040, 1050, -2041, -1010, 1060],
    "calib_mode": ["DEGREE"] * 6,
    "motor_names": list(JOINT_NAMES),
}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)


def lerobots_formula(entries: dict, index: int, ticks: float) -> float:
    """What LeRobot of before June 2025 read of one joint."""
    if entries["calib_mode"][index] == "LINEAR":
        start, end = entries["start_pos"][index], entries["end_pos"][index]
        return (ticks - start) / (end - start) * 100
    turned = -ticks if entries["drive_mode"][index] else ticks
    return (turned + entries["homing_offset"][index]) / 2048 * 180


def write(path: Path, entries: dict) -> Path:
    path.write_text(json.dumps(entries))
    return path


@pytest.mark.parametrize("entries", [SO100, KOCH], ids=["so100", "koch"])
@given(ticks=st.lists(st.integers(-4096, 8191), min_size=6, max_size=6))
def test_recorded_values_lead_back_to_the_encoder(entries: dict, ticks: list[int]) -> None:
    recorded = [lerobots_formula(entries, index, value) for index, value in enumerate(ticks)]
    legacy = LegacyCalibration(entries)
    encoder_ticks = legacy.to_encoder_ticks(np.array(recorded, dtype=np.float32))
    np.testing.assert_array_equal(np.rint(encoder_ticks), ticks)
    ours = [joint.to_units(np.array(float(value))) for joint, value in zip(legacy.joints, ticks, strict=True)]
    np.testing.assert_allclose(ours, recorded, rtol=1e-14)


@pytest.mark.parametrize("entries", [SO100, KOCH], ids=["so100", "koch"])
def test_the_first_pose_is_near_zero_and_the_second_a_quarter_turn_on(entries: dict) -> None:
    for joint in LegacyCalibration(entries).joints:
        expected = (0, 100) if joint.linear else (0, 90)
        read = joint.to_units(np.array([joint.start_ticks, joint.end_ticks], dtype=np.float64))
        np.testing.assert_allclose(read, expected, atol=0 if joint.linear else 12)


def test_shapes_are_kept() -> None:
    assert LegacyCalibration(SO100).to_encoder_ticks(np.zeros((3, 2, 6))).shape == (3, 2, 6)
    with pytest.raises(ValueError, match=r"expected 6 joints.*\(3, 2\)"):
        LegacyCalibration(SO100).to_encoder_ticks(np.zeros((3, 2)))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_value_that_is_not_finite_names_its_joint(bad: float) -> None:
    with pytest.raises(ValueError, match="wrist_flex: expected finite"):
        LegacyCalibration(SO100).to_encoder_ticks([0, 0, 0, bad, 0, 0])


def test_old_names_become_those_of_today() -> None:
    assert current_joint_name("main_shoulder_pan") == "shoulder_pan" == current_joint_name("shoulder_pan.pos")
    assert current_joint_name("left_gripper") == "left_gripper"
    old = SO100 | {"motor_names": [f"main_{name}" for name in JOINT_NAMES]}
    assert LegacyCalibration(old).names == JOINT_NAMES


def test_a_file_with_ranges_becomes_a_calibration_of_today(tmp_path: Path) -> None:
    calibration = load_calibration(write(tmp_path / "main_follower.json", SO100 | RANGES))
    assert list(calibration) == list(JOINT_NAMES)
    # Mirroring was the old software's: today's LeRobot reads this joint the servo's way round, in every unit.
    assert calibration["shoulder_lift"] == JointCalibration(2, 0, 0, 900, 3270)
    assert calibration["gripper"] == JointCalibration(6, 0, 0, 2021, 3377)


def test_a_gripper_that_closes_upwards_stays_mirrored(tmp_path: Path) -> None:
    swapped = {"start_pos": [*SO100["start_pos"][:5], 3377], "end_pos": [*SO100["end_pos"][:5], 2021]}
    calibration = load_calibration(write(tmp_path / "arm.json", SO100 | RANGES | swapped))
    assert calibration["gripper"] == JointCalibration(6, 1, 0, 2021, 3377)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (SO100, "no range of motion of .*'shoulder_pan'.*two poses.*lerobot-calibrate"),
        (KOCH, "no range of motion of .*'gripper'"),
        (
            SO100 | RANGES | {"range_min": [2016, *RANGES["range_min"][1:]]},
            "shoulder_pan: range_min 2016.*counted diff",
        ),
        (
            SO100 | RANGES | {"range_max": [*RANGES["range_max"][:5], 3000]},
            "gripper: range_min 2021.*counted differently",
        ),
        (SO100 | RANGES | {"range_max": RANGES["range_min"]}, "counted differently"),
        (SO100 | RANGES | {"motor_names": ["a", "b", "c", "d", "e", "f"]}, "stores no servo ids"),
    ],
)
def test_what_a_file_does_not_tell_is_not_guessed(tmp_path: Path, entries: dict, message: str) -> None:
    path = write(tmp_path / "arm.json", entries)
    with pytest.raises(ValueError, match=message) as caught:
        load_calibration(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"motor_names": ["a"]}, r"\['homing_offset'.*are missing"),
        (SO100 | {"range_min": 0}, r"\['range_min'\] are missing"),
        ({key: [] for key in SO100}, "0 motors"),
        (SO100 | {"drive_mode": [0, 0]}, r"one value a motor.*6 motors.*\{'drive_mode': 2\}"),
        (SO100 | {"calib_mode": ["RADIAN"] * 6}, "motor 0: expected .*'RADIAN'"),
        (SO100 | {"start_pos": [0.5] * 6}, "motor 0: expected .*integers"),
        (SO100 | {"drive_mode": [0, 0, 2, 0, 0, 0]}, "motor 2: expected .*drive_mode 0 or 1"),
        (SO100 | {"end_pos": SO100["start_pos"]}, "gripper: start_pos and end_pos are both 2021"),
        (SO100 | {"motor_names": ["gripper"] * 6}, "different motor names"),
        ({"gripper": {"id": 6}}, "no 'motor_names'"),
    ],
)
def test_broken_files_are_named_with_the_reason(tmp_path: Path, entries: dict, message: str) -> None:
    path = write(tmp_path / "arm.json", entries)
    with pytest.raises(ValueError, match=message) as caught:
        load_legacy_calibration(path)
    assert str(path) in str(caught.value)


@given(st.dictionaries(st.sampled_from([*SO100, *RANGES]), json_values) | st.just(SO100), st.data())
def test_no_content_breaks_the_parser(entries: dict, data: st.DataObject) -> None:
    changed = entries | {data.draw(st.sampled_from(list(SO100))): data.draw(json_values)}
    with contextlib.suppress(ValueError):
        assert LegacyCalibration(changed).joints


def test_degrees_of_another_program_are_refused() -> None:
    """Without an offset the zero pose at 2047 would read 180 deg, which LeRobot's own procedure never left."""
    other = SO100 | {"homing_offset": [0] * 6, "drive_mode": [0] * 6, "start_pos": [2047] * 5 + [1394]}
    other |= {"end_pos": [4095] * 5 + [2642]}
    with pytest.raises(ValueError, match=r"shoulder_pan: .*\[179.9, 359.9\].*cannot be known"):
        LegacyCalibration(other).to_encoder_ticks(np.zeros(6))


@pytest.mark.skipif(not REAL_FILES, reason="the calibrations of real arms are not part of this project")
@pytest.mark.parametrize("path", REAL_FILES, ids=lambda path: path.stem)
def test_real_files_give_ranges_but_no_meaning_of_their_degrees(path: Path) -> None:
    entries = json.loads(path.read_text())
    for index, (name, joint) in enumerate(load_calibration(path).items()):
        assert (joint.id, name) == (index + 1, JOINT_NAMES[index])
        assert (joint.range_min, joint.range_max) == (entries["range_min"][index], entries["range_max"][index])
    with pytest.raises(ValueError, match="cannot be known"):
        load_legacy_calibration(path).to_encoder_ticks(np.zeros(6))
