"""The whole Koch twin: LeRobot's commands work on it as on the SO-101's."""

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import draccus
import numpy as np
import pytest

pytest.importorskip("mujoco")

from lerobot.scripts.lerobot_record import RecordConfig
from lerobot.scripts.lerobot_teleoperate import TeleoperateConfig, teleoperate

from lerobot_vla_plugin.arms.calibration import example_calibration
from lerobot_vla_plugin.arms.joints import JointConverter, joint_modes
from lerobot_vla_plugin.twin import command
from lerobot_vla_plugin.twin.arm_twin import TwinConfig
from lerobot_vla_plugin.twin.cameras import CameraConfig
from lerobot_vla_plugin.twin.koch import KochTwin
from lerobot_vla_plugin.twin.scene import JOINTS
from lerobot_vla_plugin.twin.so101 import SO101Twin


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KochTwin]:
    config = TwinConfig(cameras=CameraConfig(renderer="drawing"), directory=tmp_path_factory.mktemp("koch"))
    with KochTwin(config) as twin:
        yield twin


def test_arguments_are_what_lerobot_parses(twin: KochTwin) -> None:
    teleoperate, record, *_ = command.lerobot_commands(twin)
    for config_class, words in ((TeleoperateConfig, teleoperate), (RecordConfig, record)):
        config = draccus.parse(config_class, args=words[1:])
        assert (config.robot.type, config.teleop.type) == ("koch_vla_follower", "koch_vla_leader")
        assert config.robot.port == str(twin.follower_port)
    assert "--dataset.repo_id=local/koch_twin" in record


def test_the_command_runs_a_koch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(signal, "signal", lambda _, handler: handler())  # it shall stop as soon as it runs
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    args = parser.parse_args(["--arm=koch", f"--directory={tmp_path}", "--renderer=drawing"])
    assert command.run(args) == 0
    said = capsys.readouterr().out
    assert "--robot.type=koch_vla_follower" in said
    assert "twin stopped" in said


@pytest.mark.parametrize(("twin_class", "name"), [(SO101Twin, "so101"), (KochTwin, "koch")])
def test_own_types_differ_in_the_type_only(twin_class: type[SO101Twin] | type[KochTwin], name: str) -> None:
    twin = twin_class()
    theirs = twin.robot_arguments(with_cameras=False) + twin.teleop_arguments()
    ours = twin.robot_arguments(with_cameras=False, own_types=True) + twin.teleop_arguments(own_types=True)
    changed = [(a, b) for a, b in zip(theirs, ours, strict=True) if a != b]
    assert changed == [
        (f"--robot.type={name}_follower", f"--robot.type={name}_vla_follower"),
        (f"--teleop.type={name}_leader", f"--teleop.type={name}_vla_leader"),
    ]


def _teleoperation(twin: KochTwin) -> list[str]:
    return [*twin.robot_arguments(with_cameras=False), *twin.teleop_arguments(), "--fps=50", "--teleop_time_s=4"]


def _check_motion(twin: KochTwin, touches: int, started_s: float) -> None:
    statistics = twin.follower.goal_statistics(since_s=started_s)
    assert statistics.writes > 80
    assert statistics.goals_in_range
    assert twin.task.touches > touches
    assert not twin.torque_enabled()
    goals = [list(write.goals_ticks.values()) for write in twin.follower.goal_writes()]
    assert (np.ptp(goals, axis=0)[[0, 1, 2, 5]] > 30).all()


@pytest.mark.usefixtures("patience")
def test_lerobot_teleoperates_it(twin: KochTwin, monkeypatch: pytest.MonkeyPatch) -> None:
    touches, started_s = twin.task.touches, time.monotonic()
    teleoperate(draccus.parse(TeleoperateConfig, args=_teleoperation(twin)))
    _check_motion(twin, touches, started_s)


@pytest.mark.slow
def test_lerobot_teleoperates_it_in_a_fresh_process(twin: KochTwin) -> None:
    touches, started_s = twin.task.touches, time.monotonic()
    words = [sys.executable, "-m", "lerobot.scripts.lerobot_teleoperate", *_teleoperation(twin)]
    process = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    assert process.returncode == 0, process.stderr
    _check_motion(twin, touches, started_s)


def test_the_leader_stands_where_the_follower_shall_go() -> None:
    """LeRobot carries percent from one arm to the other, whose ranges differ."""
    modes = joint_modes(JOINTS, degrees=False)
    leader, follower = (
        JointConverter(example_calibration(f"koch_{role}", f"koch_{role}"), modes, inverts_in_software=False)
        for role in ("leader", "follower")
    )
    twin = KochTwin()  # both arms begin in the same posture
    percent = leader.dict_to_units(twin.leader.positions_ticks())
    assert follower.dict_to_ticks(percent) == pytest.approx(twin.follower.positions_ticks(), abs=2)
