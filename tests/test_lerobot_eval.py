"""`lerobot-eval`, unmodified, on an emulated arm that a person judges: it refuses, evaluates, is interrupted."""

import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from test_lerobot_rollout import with_contract
from typist import Typist

from lerobot_vla_plugin.envs.episode import Ending
from lerobot_vla_plugin.envs.episode_report import read_episodes
from lerobot_vla_plugin.twin.cameras import CameraConfig
from lerobot_vla_plugin.twin.so101 import SO101Twin, TwinConfig

TASK = "Touch the red cube."


@pytest.fixture(scope="module")
def twin(tmp_path_factory) -> Iterator[SO101Twin]:
    with SO101Twin(TwinConfig(directory=tmp_path_factory.mktemp("twin"), cameras=CameraConfig(fps=30))) as twin:
        yield twin


@pytest.fixture
def moved(twin):
    before = len(twin.follower.goal_writes())
    return lambda: len(twin.follower.goal_writes()) > before


def eval_options(twin, checkpoint, folder, *more, own_types=True) -> list[str]:
    robot = twin.robot_arguments(own_types=own_types)
    return [
        f"--policy.path={checkpoint}", "--policy.device=cpu", "--env.type=physical_arm", f"--env.task={TASK}",
        "--env.fps=10", f"--env.report_dir={folder / 'report'}", f"--output_dir={folder / 'eval'}",
        *(option.replace("--robot.", "--env.robot.") for option in robot), *more,
    ]  # fmt: skip


@pytest.fixture
def evaluate(twin, monkeypatch, tmp_path, patience):
    """Run `lerobot-eval` in this process."""
    from lerobot.scripts import lerobot_eval as command

    def run(checkpoint, *more, own_types=True) -> None:
        options = eval_options(twin, checkpoint, tmp_path, *more, own_types=own_types)
        monkeypatch.setattr(sys, "argv", ["lerobot-eval", *options])
        command.main()

    return run


def test_two_episodes_judged_by_keys(trained, evaluate, typist, twin, tmp_path):
    def change_mind():
        written = tmp_path / "report" / "episodes.jsonl"
        while not written.exists() or not written.stat().st_size:
            time.sleep(0.01)
        typist.key = "f"

    threading.Thread(target=change_mind, daemon=True).start()
    evaluate(trained, "--eval.n_episodes=2", "--eval.batch_size=1")
    assert [episode.ending for episode in read_episodes(tmp_path / "report")] == [Ending.SUCCESS, Ending.FAILURE]
    assert json.loads((tmp_path / "eval" / "eval_info.json").read_text())["overall"]["pc_success"] == 50.0
    assert len(list((tmp_path / "eval" / "videos").rglob("*.mp4"))) == 2
    assert not twin.torque_enabled()


def test_sixteen_cores_make_no_eleven_arms(trained, evaluate, terminal, monkeypatch, moved, tmp_path):
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    with pytest.raises(ValueError, match=r"one environment.*got 11: give --eval\.batch_size=1"):
        evaluate(trained, "--eval.n_episodes=50")
    assert not moved()
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize("own_types", [True, False])
def test_a_checkpoint_of_the_other_arm(own_types, trained, evaluate, typist, twin, moved, tmp_path):
    checkpoint = with_contract(trained, tmp_path / "other", robot_type="koch_follower")
    with pytest.raises(ValueError, match="trained on koch_follower, this is so_follower"):
        evaluate(checkpoint, "--eval.n_episodes=1", own_types=own_types)
    assert not moved()
    assert not twin.torque_enabled()


def test_another_rate_than_the_checkpoint_s(trained, evaluate, typist, twin, tmp_path):
    typist.key = " "
    checkpoint = with_contract(trained, tmp_path / "other", fps=50.0)
    with pytest.raises(ValueError, match="trained at 50 actions a second, asked for"):
        evaluate(checkpoint, "--eval.n_episodes=1", "--env.fps=20")
    assert not twin.torque_enabled()
    assert [episode.ending for episode in read_episodes(tmp_path / "report")] == [Ending.INTERRUPTED]


@pytest.mark.parametrize(
    ("number", "own_types"),
    [(signal.SIGINT, True), pytest.param(signal.SIGTERM, False, marks=pytest.mark.slow)],
)
def test_an_interruption_in_a_fresh_process(number, own_types, trained, twin, tmp_path):
    import termios

    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    options = eval_options(twin, trained, tmp_path, "--eval.n_episodes=5", "--eval.batch_size=1", own_types=own_types)
    words = [sys.executable, "-m", "lerobot.scripts.lerobot_eval", *options]
    writes = len(twin.follower.goal_writes())
    with Typist(ours) as typist, subprocess.Popen(words, stdin=theirs, stderr=subprocess.PIPE, text=True) as process:
        try:
            while process.poll() is None and not (tmp_path / "report" / "episode_1").exists():
                time.sleep(0.05)  # the first episode is over
            typist.key = " "
            writes = len(twin.follower.goal_writes())
            while process.poll() is None and len(twin.follower.goal_writes()) < writes + 5:
                time.sleep(0.05)
            assert twin.torque_enabled()
        finally:
            process.send_signal(number)
            assert process.stderr is not None
            log = process.stderr.read()
    assert process.returncode != 0
    assert not twin.torque_enabled(), log[-3000:]
    endings = [episode.ending for episode in read_episodes(tmp_path / "report")]
    assert endings == [Ending.SUCCESS, Ending.INTERRUPTED], log[-3000:]
    assert json.loads((tmp_path / "report" / "summary.json").read_text())["overall"]["n"] == 1
    assert termios.tcgetattr(theirs) == before
    os.close(ours)
    os.close(theirs)
