"""LeRobot's own commands, unmodified, with this plugin: train, resume, adapt, load."""

import sys
from pathlib import Path

import draccus
import pytest
import torch
from conftest import JOINTS, last_checkpoint, train_fast, train_options, write_dataset
from lerobot.configs import PreTrainedConfig
from lerobot.configs.train import TrainPipelineConfig
from lerobot.policies.factory import get_policy_class, make_pre_post_processors
from smolvla_reference import make_smolvla, write_vlm_folder

from lerobot_vla_cli.main import main as lerobot_vla
from lerobot_vla_plugin.arms.contract_terms import ArmContract

REPOSITORY = Path(__file__).parent.parent
TASK = "Touch the red cube."


def contract_of(checkpoint: Path) -> ArmContract:
    return PreTrainedConfig.from_pretrained(checkpoint).contract


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


def test_a_checkpoint_of_a_fresh_process_loads_through_lerobot_alone(trained):
    action = act(trained, make_observation(96, 128))
    assert action.shape == (1, 6)
    assert action.isfinite().all()


def test_resume_goes_on_from_the_saved_weights(dataset_root, lerobot_train, tmp_path):
    lerobot_train(*train_options(dataset_root, tmp_path / "run", "--save_freq=2", "--policy.joint_unit=percent"))
    halfway = last_checkpoint(tmp_path / "run").resolve()
    before = get_policy_class("vla_flow").from_pretrained(halfway).state_dict()
    lerobot_train(f"--config_path={halfway / 'train_config.json'}", "--resume=true", "--steps=4")
    assert last_checkpoint(tmp_path / "run").resolve().parent.name == "000004"
    after = get_policy_class("vla_flow").from_pretrained(last_checkpoint(tmp_path / "run")).state_dict()
    # A run that had started anew would be as far from `before` as two random policies are from each other.
    changes = {name: (after[name] - before[name]).abs().max() for name in before}
    assert 0 < max(changes.values()) < 1e-3
    # Nobody says the unit again.
    assert contract_of(last_checkpoint(tmp_path / "run")) == contract_of(halfway)
    assert contract_of(halfway).joint_unit == "percent"


def test_training_writes_down_what_it_trains_on(trained):
    contract = contract_of(trained)
    assert (contract.robot_type, contract.joint_unit, contract.fps) == ("so_follower", "degrees", 10)
    assert contract.joint_names == [f"{joint}.pos" for joint in JOINTS]
    assert contract.cameras == {"front": [96, 128], "wrist": [96, 128]}
    assert PreTrainedConfig.from_pretrained(trained).joint_unit is None


def test_contract_and_clamp_follow_the_data_in_fine_tuning(dataset_root, lerobot_train, tmp_path):
    """The processors of the old checkpoint are loaded again; what they hold must not outlive the old data."""
    lerobot_train(*train_options(dataset_root, tmp_path / "old", "--policy.joint_unit=percent", steps=1))
    old = last_checkpoint(tmp_path / "old")
    write_dataset(tmp_path / "wide", amplitude=150)
    lerobot_train(
        f"--policy.path={old}", "--policy.push_to_hub=false", "--dataset.repo_id=tests/small", "--steps=1",
        f"--dataset.root={tmp_path / 'wide'}", f"--output_dir={tmp_path / 'new'}", "--num_workers=0",
    )  # fmt: skip
    new = last_checkpoint(tmp_path / "new")
    assert contract_of(old).joint_unit == "percent"
    assert contract_of(new).joint_unit == "degrees"
    for checkpoint, widest in ((old, 31), (new, 151)):
        config = PreTrainedConfig.from_pretrained(checkpoint)
        _, post = make_pre_post_processors(config, str(checkpoint))
        lowest, highest = post(torch.stack([torch.full((6,), -1e6), torch.full((6,), 1e6)]))
        torch.testing.assert_close(torch.stack([lowest, highest], dim=1).tolist(), list(config.contract.spans.values()))
        assert widest / 2 < highest.max() < widest + 1


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
        config = draccus.parse(TrainPipelineConfig, REPOSITORY / "configs" / "train_so101.yaml", args=[])
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
        assert contract_of(checkpoint).fps == 10
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


class TestFast:
    """`vla_fast` through the same commands; its tokenizer is fitted when training starts, and then stays."""

    @pytest.fixture(scope="class")
    @classmethod
    def base(cls, dataset_root, tmp_path_factory):
        return train_fast(dataset_root, tmp_path_factory.mktemp("fast") / "base").resolve()

    @staticmethod
    def tokenizer_files(checkpoint: Path) -> dict[str, bytes]:
        files = (path for path in (checkpoint / "action_tokenizer").rglob("*") if path.is_file())
        return {str(path.relative_to(checkpoint)): path.read_bytes() for path in files}

    def test_resumes_and_acts(self, base, lerobot_train):
        before = get_policy_class("vla_fast").from_pretrained(base).state_dict()
        lerobot_train(f"--config_path={base / 'train_config.json'}", "--resume=true", "--steps=4")
        resumed = last_checkpoint(base.parents[2])
        assert resumed.resolve().parent.name == "000004"
        after = get_policy_class("vla_fast").from_pretrained(resumed).state_dict()
        assert 0 < max((after[name] - before[name]).abs().max() for name in before) < 1e-3
        assert self.tokenizer_files(resumed) == self.tokenizer_files(base)
        action = act(resumed, make_observation())
        low, high = zip(*contract_of(resumed).spans.values(), strict=True)
        assert (action >= torch.tensor(low)).all()
        assert (action <= torch.tensor(high)).all()

    def fine_tune(self, base, root, output, *more):
        return [
            f"--policy.path={base}", "--policy.push_to_hub=false", "--dataset.repo_id=tests/small", "--steps=1",
            f"--dataset.root={root}", f"--output_dir={output}", "--num_workers=0", "--batch_size=2", *more,
        ]  # fmt: skip

    def test_fine_tuning_keeps_its_tokens_and_lora_adds_to_them(self, base, lerobot_train, tmp_path, capsys):
        write_dataset(tmp_path / "less", num_episodes=1, amplitude=20)
        lerobot_train(*self.fine_tune(base, tmp_path / "less", tmp_path / "tuned"))
        tuned = last_checkpoint(tmp_path / "tuned").resolve()
        assert self.tokenizer_files(tuned) == self.tokenizer_files(base)
        lora = ["--peft.method_type=LORA", "--peft.r=4"]
        lerobot_train(*self.fine_tune(tuned, tmp_path / "less", tmp_path / "adapted", *lora))
        adapted = last_checkpoint(tmp_path / "adapted")
        assert not (adapted / "model.safetensors").exists()
        # As `lerobot-rollout` loads it.
        from lerobot.rollout.context import _load_pretrained_policy

        config = PreTrainedConfig.from_pretrained(adapted)
        config.pretrained_path = adapted
        policy = _load_pretrained_policy(config)
        pre, _ = make_pre_post_processors(config, str(adapted))
        assert policy.select_action(pre(make_observation())).isfinite().all()

        plot = ["plot", str(adapted), str(tmp_path / "less"), "--frames=2", f"--output={tmp_path / 'chunks.png'}"]
        assert lerobot_vla(plot) == 0
        assert "tokenizer alone" in capsys.readouterr().out
        tuned.rename(tmp_path / "moved")
        assert lerobot_vla(plot) == 2
        assert f"it adapts {tuned}, which cannot be loaded" in capsys.readouterr().err


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
