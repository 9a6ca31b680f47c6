"""`lerobot-vla annotate`: a data set gets its annotation, unless it contradicts it."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import write_dataset

from lerobot_vla_cli.main import main
from lerobot_vla_plugin.arms.annotation import ANNOTATION_FILE, ArmAnnotation, read_annotation
from lerobot_vla_plugin.arms.calibration import example_calibration, example_calibration_dir, save_calibration

SO101 = example_calibration("so_follower", "so101_follower")
ANNOTATION = ArmAnnotation("so_follower", "so101_follower", "degrees", SO101)
OPTIONS = [
    "--robot.type=so101_follower",
    "--robot.id=so101_follower",
    f"--robot.calibration_dir={example_calibration_dir('so_follower')}",
]


@pytest.fixture
def dataset(dataset_root, tmp_path) -> Path:
    """A data set of its own for each test; six joints within +-31."""
    return Path(shutil.copytree(dataset_root, tmp_path / "dataset"))


def annotate(*arguments: object) -> int:
    return main(["annotate", *map(str, arguments)])


def set_info(dataset: Path, **entries: object) -> None:
    path = dataset / "meta" / "info.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def test_command_annotates_and_touches_nothing_else(dataset, capsys):
    before = {path: path.read_bytes() for path in dataset.rglob("*") if path.is_file()}
    assert annotate(dataset, *OPTIONS) == 0
    assert read_annotation(dataset) == ANNOTATION
    assert f"degrees, calibration {ANNOTATION.fingerprint}" in capsys.readouterr().out
    after = {path: path.read_bytes() for path in dataset.rglob("*") if path.is_file()}
    assert after.pop(dataset / ANNOTATION_FILE)
    assert after == before


@pytest.mark.parametrize(
    ("robot_type", "robot_name", "robot_id", "unit"),
    [
        ("so100_follower", "so_follower", "so101_follower", "degrees"),
        ("so101_vla_follower", "so_follower", "so101_follower", "degrees"),
        ("koch_follower", "koch_follower", "koch_follower", "percent"),
        ("koch_vla_follower", "koch_follower", "koch_follower", "percent"),
    ],
)
def test_the_unit_defaults_to_that_of_the_robot_type(dataset, robot_type, robot_name, robot_id, unit):
    set_info(dataset, robot_type=robot_name)
    calibration_dir = example_calibration_dir(robot_name)
    options = [f"--robot.type={robot_type}", f"--robot.id={robot_id}", f"--robot.calibration_dir={calibration_dir}"]
    assert annotate(dataset, *options) == 0
    assert (read_annotation(dataset).robot_type, read_annotation(dataset).joint_unit) == (robot_name, unit)


@pytest.mark.parametrize(("option", "unit"), [("true", "degrees"), ("false", "percent")])
def test_the_unit_can_be_said(dataset, option, unit):
    assert annotate(dataset, *OPTIONS, f"--robot.use_degrees={option}") == 0
    assert read_annotation(dataset).joint_unit == unit


@pytest.mark.parametrize("recorded", ["so100", "so101", "so100_follower", "so101_follower", "so_follower"])
def test_one_arm_has_many_names(dataset, recorded):
    set_info(dataset, robot_type=recorded)
    assert annotate(dataset, *OPTIONS) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--robot.type=koch_follower", "--robot.id=koch_follower"], "recorded with so_follower, not with koch_foll"),
        (["--robot.type=so101_leader", "--robot.id=so101_leader"], "is a leader"),
        (["--robot.type=aloha", "--robot.id=x"], "unknown arm 'aloha'; there are .*so101_follower"),
        (["--robot.type=so101_follower", "--robot.id=mine"], "no calibration mine.json .*so101_follower.json"),
    ],
)
def test_another_arm_is_refused(dataset, capsys, options, message):
    folder = "koch_follower" if "koch" in options[0] else "so_follower"
    assert annotate(dataset, *options, f"--robot.calibration_dir={example_calibration_dir(folder)}") == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (dataset / ANNOTATION_FILE).exists()


def test_an_option_that_does_not_exist_is_refused_with_those_that_do(dataset, capsys):
    with pytest.raises(SystemExit) as stop:
        annotate(dataset, *OPTIONS, "--robot.port=/dev/ttyACM0")
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert "--robot.port" in said
    assert "--robot.calibration_dir" in said
    with pytest.raises(SystemExit):
        annotate(dataset, "--robot.ty=so101_follower", *OPTIONS[1:])


def test_values_beyond_a_hundred_cannot_be_percent(tmp_path, capsys):
    write_dataset(tmp_path / "wide", num_episodes=1, cameras=(), amplitude=110.0)
    assert annotate(tmp_path / "wide", *OPTIONS, "--robot.use_degrees=false") == 2
    assert "not in percent" in capsys.readouterr().err
    assert annotate(tmp_path / "wide", *OPTIONS) == 0
    # The example's shoulder_lift turns +-104.4 deg.
    assert "shoulder_lift of action runs from -10" in capsys.readouterr().out


def test_other_joints_are_refused(dataset, tmp_path, capsys):
    save_calibration({name: joint for name, joint in SO101.items() if name != "wrist_roll"}, tmp_path / "five.json")
    arguments = [OPTIONS[0], "--robot.id=five", f"--robot.calibration_dir={tmp_path}"]
    assert annotate(dataset, *arguments) == 2
    assert "the calibration has ['elbow_flex', 'gripper', 'shoulder_lift'" in capsys.readouterr().err


def test_a_suspicious_calibration_is_reported(dataset, tmp_path, capsys):
    narrow = {**SO101, "gripper": replace(SO101["gripper"], range_max=SO101["gripper"].range_min + 20)}
    save_calibration(narrow, tmp_path / "narrow.json")
    assert annotate(dataset, OPTIONS[0], "--robot.id=narrow", f"--robot.calibration_dir={tmp_path}") == 0
    assert "note: gripper:" in capsys.readouterr().out


def test_a_data_set_without_an_arm_is_annotated_with_a_note(dataset, capsys):
    set_info(dataset, robot_type=None)
    assert annotate(dataset, *OPTIONS) == 0
    assert "does not name its arm" in capsys.readouterr().out


def test_another_format_is_refused(dataset, capsys):
    set_info(dataset, codebase_version="v2.1")
    assert annotate(dataset, *OPTIONS) == 2
    assert "convert_dataset_v21_to_v30" in capsys.readouterr().err


def test_help_says_what_it_is_for(capsys):
    with pytest.raises(SystemExit) as stop:
        annotate("--help")
    assert stop.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "meta/arm.json" in said
    assert "--robot.use_degrees" in said


def test_percent_are_not_labelled_degrees_by_default(tmp_path, capsys):
    """LeRobot recorded SO-101 in percent before 0.4.4, and percent end at exactly 100."""
    write_dataset(tmp_path / "old", num_episodes=1, num_frames=60, cameras=(), amplitude=99.5)
    path = next((tmp_path / "old").glob("data/*/*.parquet"))
    table = pq.read_table(path)
    actions = np.clip(np.array(table["action"].to_pylist()), -100, 100)
    column = pa.array(list(actions), type=table.schema.field("action").type)
    pq.write_table(table.set_column(table.schema.get_field_index("action"), table.schema.field("action"), column), path)
    assert annotate(tmp_path / "old", *OPTIONS) == 2
    assert "Say --robot.use_degrees=false, or --robot.use_degrees=true" in capsys.readouterr().err
    assert not (tmp_path / "old" / ANNOTATION_FILE).exists()
    for said, unit in (("false", "percent"), ("true", "degrees")):
        assert annotate(tmp_path / "old", *OPTIONS, f"--robot.use_degrees={said}", "--overwrite") == 0
        assert read_annotation(tmp_path / "old").joint_unit == unit


def test_a_unit_that_nobody_said_is_noted(dataset, capsys):
    assert annotate(dataset, *OPTIONS) == 0
    assert "the unit is LeRobot's default today" in capsys.readouterr().out
    assert annotate(dataset, *OPTIONS, "--robot.use_degrees=true") == 0
    assert "the unit is" not in capsys.readouterr().out
