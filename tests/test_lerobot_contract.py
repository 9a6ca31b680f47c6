"""LeRobot's own commands, unmodified, with this plugin: train, resume, adapt, load, roll out on the twin.

One fresh process for each command that matters as a process; the other cases call its main here, because every
import of LeRobot costs seconds.
"""

import os
import subprocess
import sys
from pathlib import Path

import draccus
import pytest
import torch
from conftest import train_options, write_dataset
from lerobot.configs import PreTrainedConfig
from lerobot.configs.train import TrainPipelineConfig
from lerobot.policies.factory import get_policy_class, make_pre_post_processors
from smolvla_reference import make_smolvla, write_vlm_folder

from lerobot_vla_plugin.twin.cameras import CameraConfig
from lerobot_vla_plugin.twin.so101 import SO101Twin, TwinConfig

REPOSITORY = Path(__file__).parent.parent
TASK = "Touch the red cube."


def run_command(name: str, *options: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    """Run one of LeRobot's commands in a fresh process."""
    module = f"lerobot.scripts.{name.replace('-', '_')}"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", module, *options], env=environment, capture_output=True, text=True, timeout=timeout_s
    )


def last_checkpoint(output: Path) -> Path:
    return output / "checkpoints" / "last" / "pretrained_model"


def act(checkpoint: Path, observation: dict) -> torch.Tensor:
    """One action in robot units, knowing only LeRobot."""
    config = PreTrainedConfig.from_pretrained(checkpoint)
    policy = get_policy_class(config.type).from_pretrained(checkpoint)
    pre, post = make_pre_post_processors(config, str(checkpoint))
    torch.manual_seed(0)
    return post(policy.select_action(pre(observation)))


def make_observation(height: int = 48, width: int = 64) -> dict:
    pictures = {f"observation.images.{c}": torch.rand(3, height, width) for c in ("front", "wrist")}
    return {"observation.state": torch.zeros(6), **pictures, "task": TASK}


@pytest.fixture(scope="module")
def twin_sized_root(tmp_path_factory) -> Path:
    """A data set whose pictures have the size of the twin's."""
    root = tmp_path_factory.mktemp("data") / "twin_sized"
    write_dataset(root, num_episodes=2, height=96, width=128)
    return root


@pytest.fixture(scope="module")
def trained(twin_sized_root, tmp_path_factory) -> Path:
    """A checkpoint that `lerobot-train` wrote in a fresh process, which had to discover the plugin."""
    output = tmp_path_factory.mktemp("train") / "run"
    result = run_command("lerobot-train", *train_options(twin_sized_root, output))
    assert result.returncode == 0, result.stderr[-3000:]
    return last_checkpoint(output)


def test_a_checkpoint_of_a_fresh_process_loads_through_lerobot_alone(trained):
    action = act(trained, make_observation(96, 128))
    assert action.shape == (1, 6)
    assert action.isfinite().all()


def test_resume_goes_on_from_the_saved_weights(dataset_root, lerobot_train, tmp_path):
    lerobot_train(*train_options(dataset_root, tmp_path / "run", "--save_freq=2", steps=2))
    halfway = last_checkpoint(tmp_path / "run").resolve()
    before = get_policy_class("vla_flow").from_pretrained(halfway).state_dict()
    lerobot_train(f"--config_path={halfway / 'train_config.json'}", "--resume=true", "--steps=4")
    assert last_checkpoint(tmp_path / "run").resolve().parent.name == "000004"
    after = get_policy_class("vla_flow").from_pretrained(last_checkpoint(tmp_path / "run")).state_dict()
    # A run that had started anew would be as far from `before` as two random policies are from each other.
    changes = {name: (after[name] - before[name]).abs().max() for name in before}
    assert 0 < max(changes.values()) < 1e-3


def test_the_example_predicts_a_chunk(trained, twin_sized_root):
    sys.path.insert(0, str(REPOSITORY / "examples"))
    try:
        from predict_chunk import predict_chunk
    finally:
        sys.path.pop(0)
    chunk = predict_chunk(trained, twin_sized_root, frame=3)
    assert chunk.shape == (8, 6)
    assert chunk.isfinite().all()


def test_the_shipped_configuration_is_what_lerobot_train_takes():
    with draccus.config_type("yaml"):
        config = draccus.parse(TrainPipelineConfig, REPOSITORY / "configs" / "train_vla_flow.yaml", args=[])
    assert config.policy.type == "vla_flow"
    assert config.policy.init_from == "lerobot/smolvla_base"


class TestFromSmolVLA:
    @pytest.fixture(scope="class")
    def smolvla_folder(self, tmp_path_factory):
        folder = tmp_path_factory.mktemp("smolvla")
        vlm = write_vlm_folder(folder / "vlm")
        make_smolvla(
            vlm, ["camera1", "camera2"], chunk_size=8, n_action_steps=4, num_vlm_layers=4,
            resize_imgs_with_padding=(48, 48),
        ).save_pretrained(folder / "policy")  # fmt: skip
        return folder / "policy"

    def options(self, root, output, folder, *more):
        options = train_options(root, output, f"--policy.init_from={folder}", *more)
        return [option for option in options if not option.startswith("--policy.vlm_model_name")]

    def test_fine_tunes(self, smolvla_folder, dataset_root, lerobot_train, tmp_path):
        lerobot_train(*self.options(dataset_root, tmp_path / "run", smolvla_folder))
        checkpoint = last_checkpoint(tmp_path / "run")
        assert PreTrainedConfig.from_pretrained(checkpoint).max_action_dim == 32
        assert act(checkpoint, make_observation()).shape == (1, 6)

    def test_adapts_with_lora_and_loads_the_adapter(self, smolvla_folder, dataset_root, lerobot_train, tmp_path):
        lora = ["--peft.method_type=LORA", "--peft.r=4"]
        lerobot_train(*self.options(dataset_root, tmp_path / "run", smolvla_folder, *lora))
        checkpoint = last_checkpoint(tmp_path / "run")
        assert (checkpoint / "adapter_model.safetensors").exists()
        assert not (checkpoint / "model.safetensors").exists()
        # As `lerobot-rollout` loads it.
        from lerobot.rollout.context import _load_pretrained_policy

        config = PreTrainedConfig.from_pretrained(checkpoint)
        config.pretrained_path = checkpoint
        policy = _load_pretrained_policy(config)
        pre, _ = make_pre_post_processors(config, str(checkpoint))
        assert policy.select_action(pre(make_observation())).isfinite().all()

    def test_vision_tokens_are_kept_while_training(self, smolvla_folder, dataset_root, lerobot_train, tmp_path):
        cache = f"--policy.vision_cache={tmp_path / 'cache'}"
        lerobot_train(*self.options(dataset_root, tmp_path / "run", smolvla_folder, cache, "--steps=30"))
        files = list((tmp_path / "cache").rglob("*.tokens"))
        assert {file.stem for file in files} == {"observation.images.front", "observation.images.wrist"}
        assert act(last_checkpoint(tmp_path / "run"), make_observation()).isfinite().all()


def test_fine_tuning_on_other_joints_is_refused(trained, lerobot_train, tmp_path):
    write_dataset(tmp_path / "other", joints=["a", "b", "c", "d", "e", "f"], height=96, width=128)
    with pytest.raises(ValueError, match="trained on the joints"):
        lerobot_train(
            f"--policy.path={trained}",
            "--dataset.repo_id=tests/small",
            f"--dataset.root={tmp_path / 'other'}",
            "--policy.push_to_hub=false",
            "--steps=1",
            f"--output_dir={tmp_path / 'run'}",
        )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        ({"with_action": False}, "needs the feature 'action'; the data set has: observation.state"),
        ({"num_frames": 5}, "--policy.chunk_size=5 or less"),
        ({"cameras": ()}, "at least one camera"),
    ],
)
def test_data_that_cannot_teach_is_refused(make, message, lerobot_train, tmp_path):
    write_dataset(tmp_path / "data", num_episodes=1, **make)
    with pytest.raises(ValueError, match=message):
        lerobot_train(*train_options(tmp_path / "data", tmp_path / "run"))
    assert not (tmp_path / "run" / "checkpoints").exists()


class TestRollout:
    @pytest.fixture
    def twin(self, tmp_path, request):
        """A running twin; a test may ask for another (width, height) of its pictures."""
        width, height = getattr(request, "param", (128, 96))
        cameras = CameraConfig(width=width, height=height)
        with SO101Twin(TwinConfig(directory=tmp_path / "ports", cameras=cameras)) as twin:
            yield twin

    def roll_out(self, twin, checkpoint, *more, robot=None):
        return run_command(
            "lerobot-rollout", f"--policy.path={checkpoint}", *(robot or twin.robot_arguments()),
            f"--task={TASK}", "--fps=10", "--duration=3", "--device=cpu", *more,
        )  # fmt: skip

    def test_drives_the_arm_and_lets_go(self, twin, trained):
        result = self.roll_out(twin, trained)
        assert result.returncode == 0, result.stderr[-3000:]
        statistics = twin.follower.goal_statistics()
        assert statistics.writes >= 20
        assert statistics.goals_in_range
        assert not twin.torque_enabled()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ("no task", "needs an instruction"),
            ("camera absent", "expected the cameras"),
            ("camera renamed", "Visual feature mismatch"),
        ],
    )
    def test_a_refusal_leaves_no_torque_on(self, change, message, twin, trained):
        robot, more = twin.robot_arguments(), []
        if change == "no task":
            more = ["--task="]
        elif change == "camera absent":
            robot = [a.split(", wrist: ")[0] + "}" if a.startswith("--robot.cameras") else a for a in robot]
        else:
            robot = [a.replace("{front: ", "{top: ") for a in robot]
        result = self.roll_out(twin, trained, *more, robot=robot)
        assert result.returncode != 0
        assert message in result.stderr
        assert not twin.torque_enabled()

    @pytest.mark.parametrize("twin", [(96, 72)], indirect=True)
    def test_pictures_of_another_size_are_refused_and_leave_no_torque_on(self, twin, trained):
        result = self.roll_out(twin, trained)
        assert result.returncode != 0
        assert "expected pictures of shape (3, 96, 128), got (3, 72, 96)" in result.stderr
        assert not twin.torque_enabled()

    def test_a_port_that_is_not_there(self, twin, trained):
        robot = [a.replace(str(twin.follower_port), "/dev/no_such_port") for a in twin.robot_arguments()]
        result = self.roll_out(twin, trained, robot=robot)
        assert result.returncode != 0
        assert "/dev/no_such_port" in result.stderr
