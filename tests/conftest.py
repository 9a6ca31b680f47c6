"""Shared fixtures: small data sets in LeRobot's format, and LeRobot's commands run in-process."""

import os
import shutil

# Nothing downloads during tests. Set before LeRobot is imported.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("WANDB_MODE", "disabled")

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from typist import Typist

# A busy computer may take long over one example; the time limit of the whole test is enough.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

JOINTS = ["shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper"]


def write_dataset(
    root: Path,
    num_episodes: int = 3,
    num_frames: int = 12,
    cameras: tuple[str, ...] = ("front", "wrist"),
    height: int = 48,
    width: int = 64,
    joints: list[str] | None = None,
    with_action: bool = True,
    amplitude: float = 30.0,
):
    """Record a small data set of smooth joint motion through LeRobot's own writer; pictures, not videos.

    Positions run over about +-`amplitude`: up to 100 they could be degrees or percent.
    """
    from lerobot.datasets import LeRobotDataset

    names = [f"{joint}.pos" for joint in joints or JOINTS]
    vector = {"dtype": "float32", "shape": (len(names),), "names": names}
    picture = {"dtype": "image", "shape": (height, width, 3), "names": ["height", "width", "channels"]}
    features = {"observation.state": vector, **{f"observation.images.{c}": picture for c in cameras}}
    if with_action:
        features["action"] = vector
    dataset = LeRobotDataset.create(
        repo_id="tests/small",
        fps=10,
        root=root,
        robot_type="so_follower",
        features=features,
        use_videos=False,
    )
    generator = np.random.default_rng(0)
    for _ in range(num_episodes):
        phase = generator.uniform(0, 2 * np.pi, len(names))
        for step in range(num_frames):
            state = amplitude * np.sin(0.3 * step + phase).astype(np.float32)
            frame = {"observation.state": state, "task": "Touch the red cube."}
            if with_action:
                frame["action"] = state + 1
            for camera in cameras:
                frame[f"observation.images.{camera}"] = generator.integers(0, 255, (height, width, 3), dtype=np.uint8)
            dataset.add_frame(frame)
        dataset.save_episode()
    dataset.finalize()
    return dataset


@pytest.fixture(autouse=True)
def signal_handlers():
    """LeRobot's commands, run in this process, leave handlers of their own behind."""
    names = ("SIGINT", "SIGTERM", "SIGHUP")
    before = {getattr(signal, name): signal.getsignal(getattr(signal, name)) for name in names if hasattr(signal, name)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def dataset_root(tmp_path_factory) -> Path:
    """A data set of three episodes with two cameras."""
    root = tmp_path_factory.mktemp("data") / "small"
    write_dataset(root)
    return root


@pytest.fixture
def lerobot_train(monkeypatch):
    """Run `lerobot-train` in this process with the given options."""

    def run(*options: str) -> None:
        from lerobot.scripts import lerobot_train as command

        monkeypatch.setattr(sys, "argv", ["lerobot-train", *options])
        command.main()

    return run


def train_options(root: Path, output: Path, *more: str, steps: int = 2) -> list[str]:
    """Options of a short training run of the built-in backbone on the CPU."""
    return [
        "--dataset.repo_id=tests/small",
        f"--dataset.root={root}",
        "--policy.type=vla_flow",
        "--policy.vlm_model_name=tiny",
        "--policy.device=cpu",
        "--policy.push_to_hub=false",
        "--policy.chunk_size=8",
        "--policy.n_action_steps=4",
        "--batch_size=2",
        "--num_workers=0",
        f"--steps={steps}",
        "--log_freq=1",
        f"--output_dir={output}",
        *more,
    ]


def train_fast(root: Path, output: Path) -> Path:
    """Train `vla_fast` for two steps in this process, with a tokenizer that is fitted then; gives its checkpoint."""
    from lerobot.scripts import lerobot_train as command

    options = ["--policy.type=vla_fast", "--policy.chunk_size=4", "--policy.joint_unit=degrees"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["lerobot-train", *train_options(root, output, *options)])
        command.main()
    return last_checkpoint(output)


def run_command(name: str, *options: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    """Run one of LeRobot's commands in a fresh process.

    Only for what matters as a process: every import of LeRobot costs seconds.
    """
    module = f"lerobot.scripts.{name.replace('-', '_')}"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", module, *options], env=environment, capture_output=True, text=True, timeout=timeout_s
    )


def last_checkpoint(output: Path) -> Path:
    """The newest checkpoint in a training's output folder."""
    return output / "checkpoints" / "last" / "pretrained_model"


@pytest.fixture(scope="session")
def twin_sized_root(tmp_path_factory) -> Path:
    """A data set whose pictures have the size of the twin's."""
    root = tmp_path_factory.mktemp("data") / "twin_sized"
    write_dataset(root, num_episodes=2, height=96, width=128)
    return root


@pytest.fixture(scope="session")
def trained(twin_sized_root, tmp_path_factory) -> Path:
    """A checkpoint that `lerobot-train` wrote in a fresh process, which had to discover the plugin."""
    output = tmp_path_factory.mktemp("train") / "run"
    result = run_command("lerobot-train", *train_options(twin_sized_root, output, "--policy.joint_unit=degrees"))
    assert result.returncode == 0, result.stderr[-3000:]
    return last_checkpoint(output)


@pytest.fixture(scope="session")
def recorded(tmp_path_factory) -> Path:
    """A recording of known ticks; no test may change it."""
    from tick_dataset import record

    root = tmp_path_factory.mktemp("recorded") / "ticks"
    record(root)
    return root


@pytest.fixture(scope="session")
def in_percent(recorded) -> Path:
    """The recording retargeted to percent by the command."""
    from tick_dataset import run_retarget

    output = recorded.with_name("percent")
    assert run_retarget(recorded, output, "--joint-unit=percent") == 0
    return output


@pytest.fixture
def copy(recorded, tmp_path) -> Path:
    """The recording, for a test that changes it."""
    return Path(shutil.copytree(recorded, tmp_path / "copy"))


@pytest.fixture
def patience(monkeypatch):
    """Let LeRobot's own buses wait longer than 50 ms (Feetech) and 34 ms (Dynamixel), once and for all.

    The emulated servos are served by a thread, which is later than that on a busy computer.
    """

    def wait_longer(self, packet_length: int) -> None:
        self.packet_start_time = self.getCurrentTime()
        self.packet_timeout = self.tx_time_per_byte * packet_length + 1000

    monkeypatch.setattr("lerobot.motors.feetech.feetech.patch_setPacketTimeout", wait_longer)
    monkeypatch.setattr("dynamixel_sdk.port_handler.LATENCY_TIMER", 300)


@pytest.fixture(params=["so101", "koch"])
def arm(request):
    """A follower of each kind on an emulated bus."""
    from arms_on_twins import ArmOnTwin

    with ArmOnTwin(request.param) as arm:
        yield arm


@pytest.fixture
def follower(arm):
    """Our device for that arm, connected."""
    with arm.connected() as follower:
        yield follower


@pytest.fixture
def terminal(monkeypatch) -> Iterator[int]:
    """The person's side of the terminal at which this process runs."""
    import pty  # not on Windows

    ours, theirs = pty.openpty()
    with os.fdopen(theirs) as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        yield ours
    os.close(ours)


@pytest.fixture
def typist(terminal) -> "Iterator[Typist]":
    """A person at that terminal."""
    from typist import Typist

    with Typist(terminal) as typist:
        yield typist
