"""Calibration files: what LeRobot writes can be read, what it would choke on is named."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import draccus
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lerobot.motors import MotorCalibration
from lerobot.utils.constants import HF_LEROBOT_CALIBRATION

from lerobot_vla_plugin.arms.calibration import (
    JointCalibration,
    calibration_from_lerobot,
    example_calibration,
    example_calibration_dir,
    find_calibration,
    fingerprint,
    load_calibration,
    parse_calibration,
    save_calibration,
)

SHIPPED = [
    ("so_follower", "so101_follower"),
    ("so_leader", "so101_leader"),
    ("koch_follower", "koch_follower"),
    ("koch_leader", "koch_leader"),
]
JOINT = JointCalibration(1, 0, -100, 500, 3500)


@pytest.mark.parametrize(("robot_name", "robot_id"), SHIPPED)
def test_shipped_files_are_what_lerobot_reads(robot_name: str, robot_id: str) -> None:
    ours = example_calibration(robot_name, robot_id)
    path = example_calibration_dir(robot_name) / f"{robot_id}.json"
    with path.open() as file, draccus.config_type("json"):
        theirs = draccus.load(dict[str, MotorCalibration], file)  # pyright: ignore[reportArgumentType]
    assert {name: asdict(joint) for name, joint in ours.items()} == {
        name: vars(joint) for name, joint in theirs.items()
    }


def test_shipped_files_hold_what_lerobots_calibration_writes() -> None:
    calibrations = {name: example_calibration(name, robot_id) for name, robot_id in SHIPPED}
    for calibration in calibrations.values():
        assert [joint.id for joint in calibration.values()] == [1, 2, 3, 4, 5, 6]
        assert all(joint.homing_offset != 0 for joint in calibration.values())
        assert (calibration["wrist_roll"].range_min, calibration["wrist_roll"].range_max) == (0, 4095)
    inverted = {name: [j for j, joint in c.items() if joint.drive_mode] for name, c in calibrations.items()}
    assert inverted == {"so_follower": [], "so_leader": [], "koch_follower": [], "koch_leader": ["elbow_flex"]}
    for name in ("koch_follower", "koch_leader"):
        assert max(abs(joint.homing_offset) for joint in calibrations[name].values()) > 2047


def test_lerobots_own_objects_become_ours() -> None:
    ours = example_calibration("koch_leader", "koch_leader")
    theirs = {name: MotorCalibration(**asdict(joint)) for name, joint in ours.items()}
    assert calibration_from_lerobot(theirs) == ours
    with pytest.raises(ValueError, match=r"'elbow_flex': range_min must be below range_max.*calibrate again"):
        calibration_from_lerobot({"elbow_flex": MotorCalibration(3, 0, 0, 2000, 2000)})


@given(st.permutations(list(example_calibration("so_follower", "so101_follower").items())))
def test_a_fingerprint_does_not_depend_on_the_order_of_joints(items: list) -> None:
    assert fingerprint(dict(items)) == fingerprint(example_calibration("so_follower", "so101_follower"))
    assert len(fingerprint(dict(items))) == 16


@pytest.mark.parametrize("field", ["id", "homing_offset", "range_min", "range_max"])
def test_a_fingerprint_depends_on_every_field(field: str) -> None:
    calibration = {"a": JOINT}
    changed = {"a": replace(JOINT, **{field: getattr(JOINT, field) + 1})}
    assert len({fingerprint(calibration), fingerprint(changed), fingerprint({"b": JOINT}), fingerprint({})}) == 4
    assert fingerprint({"a": replace(JOINT, drive_mode=1)}) != fingerprint(calibration)


def test_save_and_load_round_trip(tmp_path: Path) -> None:
    calibration = {"a": JOINT, "b": replace(JOINT, id=2, drive_mode=1)}
    save_calibration(calibration, tmp_path / "new" / "arm.json")
    assert load_calibration(tmp_path / "new" / "arm.json") == calibration


def test_a_missing_file_names_those_beside_it(tmp_path: Path) -> None:
    save_calibration({"a": JOINT}, tmp_path / "here.json")
    with pytest.raises(FileNotFoundError, match=r"here\.json"):
        load_calibration(tmp_path / "there.json")
    with pytest.raises(FileNotFoundError, match="so_follower"):
        example_calibration_dir("so_nobody")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "JSON object"),
        ('{"motor_names": []}', "homing_offset.*are missing"),
        (json.dumps({"elbow": {"id": 1}}), "'elbow' expected the fields"),
        (json.dumps({"elbow": asdict(JOINT) | {"range_min": 3500}}), "'elbow': range_min must be below"),
        (json.dumps({"elbow": asdict(JOINT) | {"homing_offset": 1.5}}), "homing_offset must be an integer"),
        (json.dumps({"elbow": asdict(JOINT) | {"drive_mode": 2}}), "drive_mode must be 0 or 1"),
        (json.dumps({"a": asdict(JOINT), "b": asdict(JOINT)}), "share a servo id"),
    ],
)
def test_broken_files_are_named_with_the_reason(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "arm.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        load_calibration(path)
    assert str(path) in str(caught.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)


@given(
    json_values
    | st.fixed_dictionaries({"elbow_flex": st.fixed_dictionaries(dict.fromkeys(asdict(JOINT), json_values))})
)
def test_no_content_breaks_the_parser(content: object) -> None:
    try:
        calibration = parse_calibration(content)
    except ValueError:
        return
    assert all(joint.range_min < joint.range_max for joint in calibration.values())


@pytest.fixture
def lerobot_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of LeRobot with one calibration under today's name and one under an old one."""
    monkeypatch.delenv("HF_LEROBOT_CALIBRATION", raising=False)
    monkeypatch.setenv("HF_LEROBOT_HOME", str(tmp_path))
    save_calibration({"a": JOINT}, tmp_path / "calibration/robots/so_follower/new.json")
    save_calibration({"a": JOINT}, tmp_path / "calibration/robots/so100_follower/old.json")
    return tmp_path / "calibration"


def test_lerobots_folder_is_where_lerobot_looks() -> None:
    with pytest.raises(FileNotFoundError) as caught:
        find_calibration("koch_leader", "nobody-has-this-id")
    assert f"'{HF_LEROBOT_CALIBRATION}/teleoperators/koch_leader'" in str(caught.value)


@pytest.mark.parametrize(
    ("variables", "root"),
    [
        ({"HF_LEROBOT_CALIBRATION": "/c"}, "/c"),
        ({"HF_LEROBOT_HOME": "/l"}, "/l/calibration"),
        ({"HF_HOME": "/h"}, "/h/lerobot/calibration"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/huggingface/lerobot/calibration"),
        ({}, str(Path.home() / ".cache/huggingface/lerobot/calibration")),
    ],
)
def test_lerobots_environment_variables_move_the_folder(
    monkeypatch: pytest.MonkeyPatch, variables: dict, root: str
) -> None:
    for name in ("HF_LEROBOT_CALIBRATION", "HF_LEROBOT_HOME", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(FileNotFoundError, match=f"'{root}/robots/so_follower'"):
        find_calibration("so_follower", "nobody-has-this-id")


@pytest.mark.parametrize("robot_type", ["so_follower", "so101_follower", "so100_follower", "so101_vla_follower"])
def test_calibrations_are_found_under_new_and_old_names(lerobot_home: Path, robot_type: str) -> None:
    assert find_calibration(robot_type, "new") == lerobot_home / "robots/so_follower/new.json"
    assert find_calibration(robot_type, "old") == lerobot_home / "robots/so100_follower/old.json"


def test_the_folder_of_today_goes_first(lerobot_home: Path) -> None:
    save_calibration({"a": JOINT}, lerobot_home / "robots/so101_follower/new.json")
    assert find_calibration("so101_follower", "new") == lerobot_home / "robots/so_follower/new.json"


def test_a_given_folder_holds_the_file_itself(lerobot_home: Path, tmp_path: Path) -> None:
    save_calibration({"a": JOINT}, tmp_path / "mine/arm.json")
    assert find_calibration("koch_leader", "arm", tmp_path / "mine") == tmp_path / "mine/arm.json"
    with pytest.raises(FileNotFoundError, match=r"mine/arm\.json"):
        find_calibration("koch_leader", "new", tmp_path / "mine")


def test_a_calibration_that_is_not_there_lists_those_that_are(lerobot_home: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"so_follower/new\.json.*so100_follower/old\.json"):
        find_calibration("so101_follower", "my_arm")
    with pytest.raises(FileNotFoundError, match="no calibrations"):
        find_calibration("so101_leader", "my_arm")
    with pytest.raises(ValueError, match=r"unknown arm 'so102'; there are .*'so101_follower'"):
        find_calibration("so102", "my_arm")
