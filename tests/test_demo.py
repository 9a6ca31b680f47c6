"""The demo: its figures by hand, its exit codes, and (slow) the whole of it, interrupted and to the end."""

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from lerobot_vla_plugin import demo
from lerobot_vla_plugin.child_process import StepFailedError
from lerobot_vla_plugin.demo_commands import (
    demonstrate_command,
    evaluate_command,
    make_twin,
    tokenizer_command,
    train_command,
)
from lerobot_vla_plugin.demo_recipe import FULL, QUICK, DemoFolder
from lerobot_vla_plugin.demo_steps import EvaluationSummary, summarize_evaluation
from lerobot_vla_plugin.progress import ClockBar, StepBar
from lerobot_vla_plugin.training_log import TrainingLog
from lerobot_vla_plugin.twin.goal_log import GoalWrite, summarize_goals
from lerobot_vla_plugin.twin.scenes import TASKS

needs_pty = pytest.mark.skipif(os.name != "posix", reason="the twin needs pseudo-terminals")


@pytest.fixture
def options(tmp_path) -> argparse.Namespace:
    """Options as the command line gives them."""
    parser = argparse.ArgumentParser()
    demo.add_arguments(parser)
    return parser.parse_args(["--output-dir", str(tmp_path / "out"), "--quick"])


@pytest.fixture
def steps_done(monkeypatch):
    """Replace the five steps; evaluation and open-loop check say what the test wants."""

    def replace(*, successes: int, beats_baselines: bool) -> None:
        evaluation = EvaluationSummary({"successes": successes}, 1, 6)
        monkeypatch.setattr(demo, "record", lambda *_: None)
        monkeypatch.setattr(demo, "demonstrate", lambda *_: None)
        monkeypatch.setattr(demo, "train", lambda *_: TrainingLog())
        monkeypatch.setattr(demo, "evaluate", lambda *_: evaluation)
        monkeypatch.setattr(demo, "_check", lambda *_: SimpleNamespace(beats_baselines=beats_baselines))
        replaced = {"report.format_table": "TABLE", "report.write_json": None, "chunk_picture.plot_chunks": None}
        for name, value in replaced.items():
            monkeypatch.setattr(f"lerobot_vla_plugin.{name}", lambda *_, value=value: value)

    return replace


@pytest.mark.parametrize(("successes", "beats_baselines", "code"), [(3, True, 0), (3, False, 1), (0, True, 1)])
def test_the_exit_code_is_the_verdict(options, steps_done, capsys, successes, beats_baselines, code):
    steps_done(successes=successes, beats_baselines=beats_baselines)
    assert demo.run(options) == code
    out = capsys.readouterr().out
    for words in ("=== 5/5", "TABLE", "--quick", str(options.output_dir / "recorded"), "lerobot-find-port"):
        assert words in out


def test_a_failed_step_is_told(options, monkeypatch, capsys):
    def fail(*_):
        raise StepFailedError("lerobot-record ended with exit code 1")

    monkeypatch.setattr(demo, "record", fail)
    assert demo.run(options) == 1
    assert "lerobot-record ended with exit code 1" in capsys.readouterr().err


def test_nothing_is_overwritten(options, capsys):
    options.output_dir.mkdir()
    (options.output_dir / "mine").write_text("kept")
    assert demo.run(options) == 2
    assert "exists already" in capsys.readouterr().err
    assert [p.name for p in options.output_dir.iterdir()] == ["mine"]


def test_a_machine_without_the_means_is_told(options, monkeypatch, capsys):
    def fail(*_):
        raise OSError("the twin needs pseudo-terminals")

    monkeypatch.setattr(demo, "record", fail)
    assert demo.run(options) == 2
    assert "pseudo-terminals" in capsys.readouterr().err


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGINT)])
def test_every_signal_ends_it_in_order(options, monkeypatch, capsys, number):
    cleaned = []

    def interrupted(*_):
        try:
            os.kill(os.getpid(), number)
            time.sleep(5)
        finally:
            cleaned.append(True)

    monkeypatch.setattr(demo, "record", interrupted)
    before = signal.getsignal(number)
    assert demo.run(options) == 130
    assert cleaned == [True]
    assert signal.getsignal(number) is before
    assert "Nothing is left running" in capsys.readouterr().err


def test_evaluation_figures_by_hand():
    goals = [{"a": 1000, "b": 100}, {"a": 1512, "b": 90}, {"a": 1256}]
    writes = [GoalWrite(t, g) for t, g in zip((10.0, 10.1, 10.4), goals, strict=True)]
    sent = summarize_goals(writes, {"a": (900, 1512), "b": (95, 200), "c": (0, 1)})
    summary = summarize_evaluation({"successes": 4}, sent)
    assert (summary.goal_writes, summary.ticks_written, summary.figures) == (3, 5, {"successes": 4})
    assert summary.swing_deg == pytest.approx({"a": 45.0, "b": 10 * 360 / 4096})
    assert summary.out_of_range == ("b",)


@pytest.mark.parametrize("policy", FULL)
def test_the_command_line_decides_policy_and_seed(policy, tmp_path):
    command = train_command(DemoFolder(tmp_path), FULL[policy], policy, seed=7)
    assert {"--seed=7", f"--policy.type={policy}", *FULL[policy].options} <= set(command.options)


@needs_pty
def test_no_scene_is_used_twice(tmp_path):
    """Recorded in real time, to train on, evaluated: an attempt more or less than asked for makes no difference."""
    folder, recipe, seed = DemoFolder(tmp_path), FULL["vla_flow"], 3
    with make_twin(folder, recipe, seed, lock_step=True) as twin:
        commands = demonstrate_command(folder, recipe, seed), evaluate_command(twin, folder, recipe, seed)
    options = dict(o.lstrip("-").split("=", 1) for command in commands for o in command.options if "=" in o)
    counts = {
        twin.config.seed: recipe.recorded,
        int(options["first-seed"]): recipe.demonstrations,
        int(options["seed"]): recipe.scenes,
    }
    scenes = [{first + number for number in range(2 * count)} for first, count in counts.items()]
    assert len(set.union(*scenes)) == sum(map(len, scenes))


def test_the_tokens_are_those_that_were_fitted(tmp_path):
    folder = DemoFolder(tmp_path)
    fit, train = tokenizer_command(folder, FULL["vla_fast"]), train_command(folder, FULL["vla_fast"], "vla_fast", 0)
    assert f"--output={folder.action_tokenizer}" in fit.options
    assert f"--policy.action_tokenizer_path={folder.action_tokenizer}" in train.options
    chunk_size = f"chunk_size={FULL['vla_fast'].chunk_size}"
    assert f"--{chunk_size.replace('_', '-')}" in fit.options
    assert f"--policy.{chunk_size}" in train.options
    assert not any("tokenizer" in option for option in train_command(folder, FULL["vla_flow"], "vla_flow", 0).options)
    assert folder.log(fit).name == "lerobot-vla-tokenizer.log"


def test_bars_only_go_forward():
    with StepBar("training", 100, "steps") as bar:
        for position, expected in ((10, 10), (5, 10), (250, 100)):
            bar.advance_to(position)
            assert bar.position == expected


def test_the_clock_runs_between_two_lines():
    with ClockBar("rollout", 100, "loop started", "limit reached") as bar:
        bar.read_line("INFO something else")
        bar.tick()
        assert (bar.position, bar.began_s) == (0, None)
        bar.read_line("INFO control loop started")
        time.sleep(0.02)
        bar.tick()
        assert 0 < bar.position < 10
        bar.read_line("INFO limit reached")
        assert bar.position == 100
        assert bar.began_s < bar.ended_s


# The whole of it ------------------------------------------------------------------------------------------------


def start_demo(output: Path, *more: str) -> subprocess.Popen:
    source = "import sys; from lerobot_vla_cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", source, "demo", "--quick", "--output-dir", str(output), *more]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True)


def processes_naming(text: str) -> list[str]:
    """Command lines of running processes that hold a text."""
    lines = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout.splitlines()
    return [line for line in lines if text in line]


@needs_pty
@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_recording_leaves_nothing_behind(tmp_path, number):
    output = tmp_path / "out"
    process = start_demo(output)
    log = output / "logs" / "lerobot-record.log"
    end_s = time.monotonic() + 120
    while time.monotonic() < end_s and not (log.exists() and "Recording episode 0" in log.read_text()):
        assert process.poll() is None
        time.sleep(0.2)
    time.sleep(1)
    process.send_signal(number)
    _, err = process.communicate(timeout=40)
    assert process.returncode == 130
    assert "Nothing is left running" in err
    # LeRobot says this once the torque is off and the port closed
    assert "SOFollower disconnected" in log.read_text()
    assert processes_naming(str(output)) == []
    assert not (output / "ports" / "follower").exists()


@needs_pty
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("policy", FULL)
def test_the_whole_job(tmp_path, policy):
    output = tmp_path / "out"
    process = start_demo(output, f"--policy={policy}")
    out, err = process.communicate(timeout=590)
    assert process.returncode in (0, 1), err  # 1: a weak policy, which little training may give
    assert "ended with exit code" not in err
    figures = json.loads((output / "summary.json").read_text())
    recipe = QUICK[policy]
    assert figures["frames"] >= 0.9 * recipe.recorded * TASKS["reach-touch"].episode_s * recipe.fps
    assert figures["training"]["last_loss"] < figures["training"]["first_loss"]
    evaluation = figures["evaluation"]
    assert evaluation["figures"]["n"] == recipe.scenes
    assert evaluation["goal_writes"] > 0
    assert evaluation["out_of_range"] == []
    did_well = figures["open_loop"]["beats_baselines"] and evaluation["figures"]["successes"]
    assert process.returncode == (0 if did_well else 1)
    assert (output / "evaluation.html").stat().st_size > 10_000
    assert (output / "chunks.png").stat().st_size > 10_000
    commands = [
        shlex.split(part.partition("\n\n")[0].replace("\\\n", "")) for part in out.split("HF_HUB_OFFLINE=1 ")[1:]
    ]
    ours = ["lerobot-vla"] if policy == "vla_fast" else []
    expected = ["lerobot-record", "lerobot-vla", "lerobot-vla", *ours, "lerobot-train", "lerobot-eval", "lerobot-vla"]
    assert [words[1] for words in commands] == expected
    assert ("token_accuracy" in figures["training"]) == (policy == "vla_fast")
    assert processes_naming(str(output)) == []
