"""`lerobot-vla check --robot.type=...` on emulated arms."""

import json
from dataclasses import asdict

import pytest
from arms_on_twins import ArmOnTwin

from lerobot_vla_cli.main import main
from lerobot_vla_plugin.arms.calibration import save_calibration
from lerobot_vla_plugin.arms.reliable_bus import ReliableBus
from lerobot_vla_plugin.twin.faults import Fault, FaultKind

ARMS = [("so101", "follower"), ("so101", "leader"), ("koch", "follower"), ("koch", "leader")]


@pytest.fixture
def arm(request):
    """An SO-101 follower, or the arm that a test asks for."""
    with ArmOnTwin(*getattr(request, "param", ("so101", "follower"))) as arm:
        yield arm


@pytest.fixture(autouse=True)
def without_search(request, monkeypatch):
    """The search for servos that no arm has takes 1.6 s a call; the tests that need it ask for it."""
    if "with_search" not in request.fixturenames:
        monkeypatch.setattr(ReliableBus, "broadcast_ping", lambda self: {})


@pytest.fixture
def with_search():
    """Let the search run."""


def check(arm, *more: str) -> int:
    return main(["check", *arm.arguments(), *more])


def answer(monkeypatch, text: str) -> list[str]:
    """Answer every question, and keep them."""
    questions: list[str] = []
    monkeypatch.setattr("builtins.input", lambda question: questions.append(question) or text)
    return questions


def report(arm, capsys) -> dict:
    check(arm, "--json")
    return json.loads(capsys.readouterr().out)["robot"]


@pytest.mark.parametrize("arm", ARMS, indirect=True, ids="_".join)
def test_a_sound_arm_is_fine_and_is_left_alone(arm, with_search, capsys):
    assert check(arm) == 0
    text = capsys.readouterr().out
    assert "0 problems found" in text
    for joint in arm.calibration:
        assert f"\n{joint} " in text
    assert arm.bus.goal_writes() == []
    assert not any(arm.bus.torque_enabled().values())


def test_what_it_reads_is_what_the_servos_hold(arm, capsys):
    arm.bus.teleport({**arm.middle, "elbow_flex": arm.calibration["elbow_flex"].range_max})
    servos = {servo["joint"]: servo for servo in report(arm, capsys)["servos"]}
    assert {joint: servo["ticks"] for joint, servo in servos.items()} == arm.bus.positions_ticks()
    assert servos["elbow_flex"]["percent"] == 100.0
    assert servos["shoulder_lift"]["degrees"] == pytest.approx(0, abs=0.05)
    assert servos["gripper"]["degrees"] is None
    assert {servo["model"] for servo in servos.values()} == {"sts3215"}
    assert {servo["calibration"] for servo in servos.values()} == {"agrees"}


def test_torque_of_a_running_arm_is_not_touched(arm):
    for name in arm.calibration:
        arm.bus.set_register(name, "Torque_Enable", 1)
    assert check(arm) == 0
    assert all(arm.bus.torque_enabled().values())


def test_a_dead_servo_hides_no_other(arm, capsys):
    arm.bus.inject(Fault(FaultKind.MOTOR_GONE, joint="elbow_flex"))
    assert check(arm) == 1
    text = capsys.readouterr().out
    assert "elbow_flex: no servo answers to id 3" in text
    assert text.count("agrees") == 5


def test_a_servo_whose_id_was_never_set_is_found(arm, with_search, capsys):
    arm.bus.set_register("wrist_roll", "ID", 9)
    assert check(arm) == 1
    text = capsys.readouterr().out
    assert "no servo answers to id 5" in text
    assert "a servo (model number 777) answers to id 9, which this arm does not have" in text


def test_a_servo_that_reports_a_fault_is_named_with_its_remedy(arm, capsys):
    arm.bus.inject(Fault(FaultKind.OVERLOAD, joint="gripper", count=1))
    assert check(arm) == 1
    assert "gripper: it reports overload\n   remedy: the joint is blocked" in capsys.readouterr().out


def test_a_joint_outside_its_range_is_found(arm, capsys):
    arm.bus.teleport({**arm.middle, "wrist_flex": arm.calibration["wrist_flex"].range_max + 40})
    assert check(arm) == 1
    assert "wrist_flex: stands at" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("register", "value", "message"),
    [
        ("Present_Voltage", 30, "3.0 V, its own limits are 4.0 to 8.0 V"),
        ("Present_Temperature", 66, "66 deg C; at 70 it switches itself off"),
        ("Homing_Offset", 12, "homing_offset is"),
        ("Firmware_Minor_Version", 9, "servos of different firmware"),
    ],
)
def test_readings_that_are_not_right_are_problems(register, value, message, arm, capsys):
    arm.bus.set_register("shoulder_lift", register, value)
    assert check(arm) == 1
    assert message in capsys.readouterr().out


class TestWritingTheCalibration:
    @pytest.fixture
    def folder(self, arm, tmp_path):
        elbow = arm.calibration["elbow_flex"]
        wider = {**arm.calibration, "elbow_flex": type(elbow)(3, 0, elbow.homing_offset + 5, 900, 3000)}
        save_calibration(wider, tmp_path / "so101_follower.json")
        return tmp_path

    def test_is_done_after_a_yes_and_only_where_they_differ(self, arm, folder, monkeypatch, capsys):
        questions = answer(monkeypatch, "y")
        assert check(arm, f"--robot.calibration_dir={folder}", "--write-calibration") == 1
        assert "EEPROM of: elbow_flex." in capsys.readouterr().out
        assert len(questions) == 1
        assert arm.bus.registers("Max_Position_Limit") == {
            **{name: joint.range_max for name, joint in arm.calibration.items()}, "elbow_flex": 3000,
        }  # fmt: skip
        assert check(arm, f"--robot.calibration_dir={folder}") == 0

    @pytest.mark.parametrize("text", ["", "n", "no"])
    def test_is_not_done_without_a_yes(self, text, arm, folder, monkeypatch):
        answer(monkeypatch, text)
        assert check(arm, f"--robot.calibration_dir={folder}", "--write-calibration") == 1
        assert arm.bus.registers("Max_Position_Limit")["elbow_flex"] == arm.calibration["elbow_flex"].range_max


class TestMoving:
    def test_every_joint_moves_and_comes_back_without_torque(self, arm, monkeypatch, capsys):
        answer(monkeypatch, "y")
        assert check(arm, "--move") == 0
        assert capsys.readouterr().out.count("told to move -34 ticks") == 6
        assert arm.bus.positions_ticks() == pytest.approx(arm.middle, abs=1)
        assert not any(arm.bus.torque_enabled().values())

    def test_a_jammed_joint_is_found(self, arm, monkeypatch, capsys):
        answer(monkeypatch, "y")
        arm.bus.inject(Fault(FaultKind.STUCK, joint="wrist_roll", count=1))
        assert check(arm, "--move") == 1
        assert "wrist_roll: told to move -34 ticks, moved +0" in capsys.readouterr().out

    def test_nothing_moves_without_a_yes(self, arm, monkeypatch):
        answer(monkeypatch, "n")
        assert check(arm, "--move") == 0
        assert arm.bus.goal_writes() == []

    def test_nothing_moves_on_an_arm_whose_calibration_differs(self, arm, monkeypatch, capsys):
        questions = answer(monkeypatch, "y")
        arm.bus.set_register("gripper", "Homing_Offset", 100)
        assert check(arm, "--move") == 1
        assert questions == []
        assert arm.bus.goal_writes() == []


def test_without_an_id_the_servos_say_what_they_hold(arm, capsys):
    assert main(["check", "--robot.type=so101_follower", f"--robot.port={arm.port}"]) == 0
    assert capsys.readouterr().out.count("no file") == 6


def test_an_id_without_a_file_is_a_problem(arm, tmp_path, capsys):
    assert check(arm, f"--robot.calibration_dir={tmp_path}", "--robot.id=mine") == 1
    assert "mine.json, which does not exist" in capsys.readouterr().out


class TestLeaderAndFollower:
    @pytest.fixture
    def leader(self):
        with ArmOnTwin("so101", "leader") as leader:
            yield leader

    def test_a_pair_that_fits(self, arm, leader, capsys):
        assert check(arm, *leader.arguments()) == 0
        assert capsys.readouterr().out.count("0 problems found") == 2

    def test_a_pair_whose_ranges_are_far_apart(self, arm, leader, tmp_path, capsys):
        calibration = {**leader.calibration}
        elbow = calibration["elbow_flex"]
        calibration["elbow_flex"] = type(elbow)(
            elbow.id, 0, elbow.homing_offset, elbow.range_min + 500, elbow.range_max
        )
        save_calibration(calibration, tmp_path / f"{leader.id}.json")
        assert check(arm, *leader.arguments(), f"--teleop.calibration_dir={tmp_path}", "--json") == 1
        (problem,) = json.loads(capsys.readouterr().out)["pair"]
        assert problem["joint"] == "elbow_flex"
        assert "stand up to" in problem["message"]


def test_a_file_that_cannot_be_used_is_a_problem(arm, tmp_path, capsys):
    entries = {name: asdict(joint) for name, joint in arm.calibration.items()}
    entries["wrist_roll"]["range_max"] = entries["wrist_roll"]["range_min"]
    (tmp_path / f"{arm.id}.json").write_text(json.dumps(entries))
    assert check(arm, f"--robot.calibration_dir={tmp_path}") == 1
    assert "wrist_roll: " in capsys.readouterr().out


@pytest.mark.parametrize("text", ["{", '{"elbow_flex": {"id": 3}}'])
def test_a_file_that_cannot_be_read_is_named(text, arm, tmp_path, capsys):
    (tmp_path / f"{arm.id}.json").write_text(text)
    assert check(arm, f"--robot.calibration_dir={tmp_path}") == 2
    assert f"{arm.id}.json in {tmp_path} cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--robot.type=so101_follower"], "expected --robot.port"),
        (["--robot.type=so101_follower", "--robot.port=/dev/x", "--json", "--move"], "--json only reads"),
        (["--robot.type=so102_follower", "--robot.port=/dev/x"], "unknown arm 'so102_follower'"),
        (["--robot.type=koch_follower", "--robot.port=/dev/no_such_port"], "/dev/no_such_port"),
    ],
)
def test_what_cannot_be_looked_at_is_another_exit_code(arguments, message, capsys):
    assert main(["check", *arguments]) == 2
    assert message in capsys.readouterr().err
