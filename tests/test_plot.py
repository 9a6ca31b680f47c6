"""`lerobot-vla plot`: what it says about a checkpoint that LeRobot trained, and about what it cannot look at."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import JOINTS, train_fast, write_dataset
from lerobot.configs.default import DatasetConfig
from lerobot.configs.train import TrainPipelineConfig
from lerobot.datasets import LeRobotDatasetMetadata
from lerobot.datasets.factory import make_train_eval_datasets
from matplotlib.image import imread

from lerobot_vla_cli.main import main
from lerobot_vla_plugin.configuration_vla import VLAFlowConfig
from lerobot_vla_plugin.plot import default_episodes, warnings
from lerobot_vla_plugin.training_episodes import Standing, TrainingEpisodes, read_training_episodes

HELD_OUT, TRAINED_ON, UNKNOWN = Standing.HELD_OUT, Standing.TRAINED_ON, Standing.UNKNOWN


def plot(*arguments: object) -> int:
    return main(["plot", *map(str, arguments)])


def checkpoint_trained_on(folder: Path, run: dict | None = None, **dataset: object) -> Path:
    """A folder that says what it was trained on, as LeRobot writes it down."""
    folder.mkdir(exist_ok=True)
    described = {"repo_id": "tests/small", "root": None, "episodes": None, "eval_split": 0.0, **dataset}
    (folder / "train_config.json").write_text(json.dumps({"dataset": described, **(run or {})}))
    return folder


@pytest.fixture
def meta(dataset_root) -> LeRobotDatasetMetadata:
    """Metadata of the small data set: three episodes."""
    return LeRobotDatasetMetadata("tests/small", root=dataset_root)


def test_table_and_picture_of_a_checkpoint(trained, twin_sized_root, tmp_path, capsys):
    run, picture = trained.resolve().parents[2], tmp_path / "chunks.png"
    assert plot(run, "unused", "--root", twin_sized_root, "--episode", 0, 1, "--frames=2", "--output", picture) == 0
    out, err = capsys.readouterr()
    assert "4 frames of episodes 0 (TRAINED ON), 1 (TRAINED ON)" in out
    for words in ("shoulder_pan [deg]", "gripper [%]", "p99", "max", "hold still", "along the chunk", str(picture)):
        assert words in out
    assert "trained on episode 0, 1" in err
    assert "it has seen every episode" in err
    assert imread(picture).shape[0] > 800


def test_a_policy_of_action_tokens(twin_sized_root, tmp_path, capsys):
    checkpoint = train_fast(twin_sized_root, tmp_path / "run")
    assert plot(checkpoint, twin_sized_root, "--frames=2", "--output", tmp_path / "chunks.png") == 0
    out = capsys.readouterr().out
    for words in ("tokenizer alone", "into tokens and back alone costs", "Its chunks take"):
        assert words in out


# What cannot be looked at -------------------------------------------------------------------------------------------


def refused(capsys, *arguments: object) -> str:
    """What the command says when it ends with 2."""
    assert plot(*arguments) == 2
    return capsys.readouterr().err


def test_what_is_missing_is_named(trained, twin_sized_root, tmp_path, capsys):
    picture = f"--output={tmp_path / 'chunks.png'}"
    absent = tmp_path / "nothing"
    assert f"no checkpoint {absent}" in refused(capsys, absent, twin_sized_root, picture)
    assert "no data set nobody/nothing" in refused(capsys, trained, "nobody/nothing", picture)
    assert "there is no folder" in refused(capsys, trained, twin_sized_root, f"--output={absent / 'a.png'}")
    assert "ends with .png" in refused(capsys, trained, twin_sized_root, "--output=chunks.txt")
    message = refused(capsys, trained, twin_sized_root, "--episode=7", picture)
    assert "no episode [7]" in message
    assert "episodes 0..1" in message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("frames", ["1", "all"])
def test_too_few_frames_are_refused(capsys, frames):
    with pytest.raises(SystemExit) as ended:
        plot("checkpoint", "dataset", f"--frames={frames}")
    assert ended.value.code == 2
    assert "--frames" in capsys.readouterr().err


def test_another_arm_is_refused(trained, tmp_path, capsys):
    write_dataset(tmp_path / "cut", num_episodes=1, joints=JOINTS[:5], height=96, width=128)
    message = refused(capsys, trained, tmp_path / "cut", f"--output={tmp_path / 'a.png'}")
    assert "the checkpoint was trained on the joints" in message
    assert "gripper.pos" in message


def test_another_camera_is_refused(trained, tmp_path, capsys):
    write_dataset(tmp_path / "one", num_episodes=1, cameras=("front",), height=96, width=128)
    assert "lacks observation.images.wrist" in refused(
        capsys, trained, tmp_path / "one", f"--output={tmp_path / 'a.png'}"
    )


@pytest.mark.parametrize("damaged", ["config.json", "model.safetensors", "train_config.json"])
def test_a_damaged_checkpoint_is_refused(trained, twin_sized_root, tmp_path, capsys, damaged):
    copy = Path(shutil.copytree(trained, tmp_path / "copy"))
    (copy / damaged).write_bytes((copy / damaged).read_bytes()[:100])
    assert str(copy) in refused(capsys, copy, twin_sized_root, f"--output={tmp_path / 'a.png'}")


def test_an_unknown_policy_is_refused(tmp_path, twin_sized_root, capsys):
    (tmp_path / "config.json").write_text('{"type": "from_the_future"}')
    assert "from_the_future" in refused(capsys, tmp_path, twin_sized_root, f"--output={tmp_path / 'a.png'}")


# What was trained on ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        ({"episodes": [0, 2]}, [TRAINED_ON, HELD_OUT, TRAINED_ON]),
        ({}, [TRAINED_ON] * 3),
        ({"eval_split": 0.3}, [TRAINED_ON, TRAINED_ON, HELD_OUT]),
        ({"episodes": [0, 1], "eval_split": 0.5}, [TRAINED_ON, HELD_OUT, HELD_OUT]),
        ({"root": "elsewhere"}, [UNKNOWN] * 3),
    ],
)
def test_what_the_training_says_about_its_episodes(meta, tmp_path, dataset, expected):
    checkpoint = checkpoint_trained_on(tmp_path / "run", **{"root": str(meta.root), **dataset})
    training = read_training_episodes(checkpoint, meta)
    assert [training.standing(episode) for episode in range(3)] == expected


@pytest.mark.parametrize("option", ["pretrained_path", "init_from"])
def test_what_the_base_was_trained_on_counts_too(meta, tmp_path, option):
    root = {"root": str(meta.root)}
    base = checkpoint_trained_on(tmp_path / "base", **root, episodes=[2])
    options = {"output_dir": str(tmp_path / "run"), "policy": {option: str(base)}}
    training = read_training_episodes(checkpoint_trained_on(tmp_path / "run", options, **root, episodes=[0]), meta)
    assert [training.standing(episode) for episode in range(3)] == [TRAINED_ON, HELD_OUT, TRAINED_ON]
    options["policy"][option] = "somebody/on_the_hub"
    training = read_training_episodes(checkpoint_trained_on(tmp_path / "run", options, **root, episodes=[0]), meta)
    assert [training.standing(episode) for episode in range(3)] == [TRAINED_ON, UNKNOWN, UNKNOWN]
    assert "after somebody/on_the_hub; whether" in warnings(training, [1])[0]


def test_a_resumed_run_has_no_base(meta, tmp_path):
    checkpoint = tmp_path / "run" / "checkpoints" / "000002" / "pretrained_model"
    options = {"output_dir": str(tmp_path / "run"), "policy": {"pretrained_path": str(checkpoint)}}
    checkpoint.mkdir(parents=True)
    checkpoint_trained_on(checkpoint, options, root=str(meta.root), episodes=[0])
    assert read_training_episodes(checkpoint, meta).held_out == [1, 2]


@pytest.mark.parametrize("eval_split", [0.0, 0.3, 0.5])
def test_the_split_is_lerobots(meta, tmp_path, eval_split):
    where = {"repo_id": "tests/small", "root": str(meta.root), "video_backend": "pyav"}
    dataset = DatasetConfig(**where, episodes=[0, 1, 2], eval_split=eval_split)
    config = TrainPipelineConfig(dataset=dataset, policy=VLAFlowConfig(device="cpu"))
    trained_on = make_train_eval_datasets(config)[0].episodes
    checkpoint = checkpoint_trained_on(tmp_path / "run", root=str(meta.root), eval_split=eval_split)
    training = read_training_episodes(checkpoint, meta)
    assert [e for e in range(3) if training.standing(e) is TRAINED_ON] == trained_on


def test_the_last_episodes_of_each_task_are_held_out(meta, tmp_path):
    tasks = [["lift"], ["push"], ["lift"], ["push"], ["lift"]]
    two_tasks = SimpleNamespace(root=meta.root, total_episodes=5, episodes={"tasks": tasks})
    checkpoint = checkpoint_trained_on(tmp_path / "run", root=str(meta.root), eval_split=0.4)
    # 2 of 3 of one task, 1 of 2 of the other
    assert read_training_episodes(checkpoint, two_tasks).held_out == [2, 3, 4]


def test_a_checkpoint_that_says_nothing(meta, tmp_path):
    training = read_training_episodes(tmp_path, meta)
    assert training.standing(0) is UNKNOWN
    assert "no train_config.json" in warnings(training, [0])[0]


def test_a_damaged_description_is_an_error(meta, tmp_path):
    (tmp_path / "train_config.json").write_text('{"dataset": {"root"')
    with pytest.raises(ValueError, match=r"train_config\.json"):
        read_training_episodes(tmp_path, meta)


def test_held_out_episodes_come_first():
    training = TrainingEpisodes("me/cube", {e: TRAINED_ON if e < 4 else HELD_OUT for e in range(9)})
    assert default_episodes(training, 9) == [4, 5, 6]
    assert default_episodes(TrainingEpisodes(), 9) == [8]
    assert warnings(training, [5]) == []
    assert "it has not seen [4, 5, 6, 7, 8]" in warnings(training, [2, 5])[0]
    assert "was trained on me/cube; whether" in warnings(TrainingEpisodes("me/cube"), [0])[0]
