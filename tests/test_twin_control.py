"""Whoever controls a twin: one client at a time, errors that say what to do, and time that passes when asked for."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("mujoco")
pytest.importorskip("mink")

from lerobot_vla_plugin.twin.cameras import CameraConfig
from lerobot_vla_plugin.twin.control import TwinBusyError, TwinControl, TwinError, control_path
from lerobot_vla_plugin.twin.scenes import draw_layout
from lerobot_vla_plugin.twin.so101 import SO101Twin, TwinConfig
from lerobot_vla_plugin.twin.so101_model import SO101

CAMERAS = CameraConfig(width=32, height=24, renderer="drawing")


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SO101Twin]:
    config = TwinConfig(cameras=CAMERAS, directory=tmp_path_factory.mktemp("t"), task="pick-lift", lock_step=True)
    with SO101Twin(config) as twin:
        yield twin


@pytest.fixture
def control(twin: SO101Twin) -> Iterator[TwinControl]:
    with TwinControl(twin.config.directory) as control:
        yield control


def test_the_greeting_says_what_the_twin_is(twin: SO101Twin, control: TwinControl) -> None:
    facts = control.facts
    assert (facts.arm, facts.lock_step, facts.steps_per_s) == ("so101", True, 300)
    assert (facts.follower_port, facts.leader_port) == (twin.follower_port, twin.leader_port)
    assert facts.camera_port == twin.camera_port
    assert facts.follower_port.exists()


def test_a_reset_lays_the_scene_of_the_seed_with_the_arm_at_its_start(twin: SO101Twin, control: TwinControl) -> None:
    control.advance(30)  # without torque the arm leaves its start
    before = control.step
    scene, layout = control.reset("pick-place", 3, "blue"), draw_layout("pick-place", 3, "blue")
    assert (scene.instruction, scene.color) == ("Put the blue cube into the bin.", "blue")
    assert scene.layout["bin_m"] == list(layout.bin_m)
    assert scene.layout["cubes"]["red"]["x_m"] == layout.cubes["red"].x_m
    assert list(scene.start_rad.values()) == SO101.start_rad.tolist()
    assert twin.follower_joints()[:5] == pytest.approx([0, -60, 60, 75, 0], abs=0.1)
    assert twin.follower.registers("Goal_Position") == twin.follower.positions_ticks()
    assert scene.step == control.step > before
    assert control.reset("pick-lift", 3).layout["bin_m"] is None


def test_time_passes_by_as_many_steps_as_asked_for(control: TwinControl) -> None:
    scene = control.reset("pick-lift", 0)
    assert control.advance(7) == scene.step + 7
    assert control.advance(60) == scene.step + 67
    verdict = control.verdict()
    assert (verdict.step, verdict.seconds) == (scene.step + 67, pytest.approx(67 / 300))
    assert (verdict.success, verdict.taken) == (False, None)
    assert verdict.done == {"touched": (), "lifted": (), "placed": ()}


def test_a_client_that_comes_back_learns_the_step(twin: SO101Twin) -> None:
    with TwinControl(twin.config.directory) as first:
        step = first.advance(5)
    with TwinControl(twin.config.directory) as second:
        assert second.step == step


def test_two_clients_at_once_are_refused(twin: SO101Twin, control: TwinControl) -> None:
    with pytest.raises(TwinBusyError, match=r"another client controls the twin.*--directory"):
        TwinControl(twin.config.directory)
    assert control.advance(1) > 0  # the first one goes on


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda control: control.reset("pick-nose", 0), "no task 'pick-nose'; there are .*pick-lift"),
        (lambda control: control.reset("pick-lift", 0, "green"), "no cube of color 'green'"),
        (lambda control: control.advance(0), "steps of 1 or more, got 0"),
        (lambda control: control.advance(1.5), "got 1.5"),
        (lambda control: control._ask("dance"), "no request 'dance'; there are"),
        (lambda control: control._ask("advance", paces=1), "unexpected keyword argument 'paces'"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_reason_and_the_twin_goes_on(control, ask, message) -> None:
    with pytest.raises(TwinError, match=message):
        ask(control)
    assert control.advance(1) == control.step


def test_bytes_that_are_no_request_are_answered_with_an_error(twin: SO101Twin) -> None:
    with socket.socket(socket.AF_UNIX) as client, client.makefile("r") as lines:
        client.connect(control_path(twin.config.directory))
        assert "facts" not in json.loads(lines.readline())
        for request in (b"hello\n", b"[]\n", b"3\n"):
            client.sendall(request)
            assert "error" in json.loads(lines.readline())
    with TwinControl(twin.config.directory) as control:
        assert control.advance(1) > 0


def test_no_twin_with_tasks_is_an_error_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ConnectionError, match="found none; start one: lerobot-vla twin --task"):
        TwinControl(tmp_path)
    listener = socket.socket(socket.AF_UNIX)  # left behind by a twin that was killed
    listener.bind(control_path(tmp_path))
    listener.close()
    with pytest.raises(ConnectionError, match="found none"):
        TwinControl(tmp_path)


def test_a_folder_with_too_long_a_name_is_an_error_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="shorter --directory"):
        TwinControl(tmp_path / ("x" * 100))


def test_a_twin_that_ends_says_so_to_its_client(tmp_path: Path) -> None:
    twin = SO101Twin(TwinConfig(cameras=CAMERAS, directory=tmp_path, task="pick-lift", lock_step=True))
    twin.start()
    with TwinControl(tmp_path) as control:
        twin.stop()
        with pytest.raises(ConnectionError, match=r"ended|reset|Broken"):
            control.advance(1)
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_options_that_need_a_task_are_refused() -> None:
    with pytest.raises(ValueError, match=r"need a task, one of .*pick-lift"):
        TwinConfig(lock_step=True)
    with pytest.raises(ValueError, match="no task 'juggle'; there are"):
        TwinConfig(task="juggle")
