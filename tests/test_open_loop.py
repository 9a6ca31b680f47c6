"""The open-loop check against numbers computed by hand, and against a checkpoint that LeRobot wrote."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import JOINTS, train_options, write_dataset

from lerobot_vla_plugin import open_loop
from lerobot_vla_plugin.arm_units import ArmUnits
from lerobot_vla_plugin.arms.calibration import JointCalibration
from lerobot_vla_plugin.open_loop import (
    HOLD_STILL,
    MEAN_ACTION,
    POLICY,
    SHUFFLED_IMAGES,
    SavedPolicy,
    check_open_loop,
    derangement,
    mean_absolute_error,
)

CHUNK = 4
PERCENT = ArmUnits(use_degrees=True)  # no calibration: the gripper stays in percent


class FakePolicy:
    """Stands in for a loaded checkpoint: predicts what a function of (state, mean of the front picture) says."""

    def __init__(self, predict_one):
        self.policy = SimpleNamespace(config=SimpleNamespace(action_delta_indices=list(range(CHUNK))))
        self._predict_one = predict_one
        self.seen_keys: set[str] = set()

    def predict(self, frames, seed):
        values = [
            self._predict_one(f["observation.state"].numpy(), f["observation.images.front"].mean().item())
            for f in frames
        ]
        return np.repeat(np.array(values, dtype=np.float64)[:, None], CHUNK, axis=1)


@pytest.fixture
def use_policy(monkeypatch):
    """Let the check load a fake policy."""

    def use(predict_one) -> None:
        fake = FakePolicy(predict_one)
        monkeypatch.setattr(SavedPolicy, "load", classmethod(lambda cls, checkpoint: fake))

    return use


def columns(root: Path, episode: int) -> tuple[np.ndarray, np.ndarray]:
    """States and actions of an episode, read without the code under test."""
    import pandas as pd

    frames = pd.concat(pd.read_parquet(path) for path in sorted(root.glob("data/**/*.parquet")))
    frames = frames[frames.episode_index == episode]
    return np.stack(frames["observation.state"]), np.stack(frames["action"])


def test_errors_by_hand():
    predicted = np.array([[[1.0, 0.0], [5.0, 2.0]], [[0.0, 0.0], [100.0, 100.0]]])
    recorded = np.array([[[0.0, 0.0], [2.0, 0.0]], [[0.0, 1.0], [0.0, 0.0]]])
    inside = np.array([[True, True], [True, False]])
    # first joint: 1, 3, 0; second: 0, 2, 1; the step outside the episode does not count
    assert mean_absolute_error(predicted, recorded, inside) == pytest.approx([4 / 3, 1.0])


def test_baselines_are_those_of_the_data(dataset_root, use_policy):
    use_policy(lambda state, picture: state)
    result = check_open_loop(Path("x"), dataset_root, 2, [0, 1], PERCENT)
    states, actions = columns(dataset_root, 2)
    mean = np.concatenate([columns(dataset_root, e)[1] for e in (0, 1)]).mean(axis=0)
    pairs = [(t, t + k) for t in range(len(states)) for k in range(CHUNK) if t + k < len(states)]
    hold = np.mean([np.abs(states[t] - actions[k]) for t, k in pairs], axis=0)
    still = np.mean([np.abs(mean - actions[k]) for _, k in pairs], axis=0)
    assert result.errors[HOLD_STILL] == pytest.approx(hold, rel=1e-5)
    assert result.errors[MEAN_ACTION] == pytest.approx(still, rel=1e-5)
    # this policy is the hold-still baseline, so it cannot beat it
    assert result.errors[POLICY] == pytest.approx(hold, rel=1e-5)
    assert not result.beats_baselines


def test_a_policy_without_eyes_is_found_out(dataset_root, use_policy):
    use_policy(lambda state, picture: state + 1)
    result = check_open_loop(Path("x"), dataset_root, 2, [0, 1], PERCENT)
    assert result.errors[SHUFFLED_IMAGES] == pytest.approx(result.errors[POLICY])
    assert result.beats_baselines
    assert not result.looks_at_images


def test_a_policy_that_reads_the_picture_gets_worse_when_shuffled(tmp_path, use_policy):
    root = tmp_path / "seen"
    write_dataset(root, num_episodes=2)
    use_policy(lambda state, picture: state + 1000 * picture)
    result = check_open_loop(Path("x"), root, 1, [0], PERCENT)
    assert not np.allclose(result.errors[SHUFFLED_IMAGES], result.errors[POLICY])


def test_stride_and_the_end_of_the_episode(dataset_root, use_policy):
    use_policy(lambda state, picture: state)
    result = check_open_loop(Path("x"), dataset_root, 0, [1, 2], PERCENT, stride=5)
    assert result.frames.tolist() == [0, 5, 10]
    assert result.inside.tolist() == [[True] * 4, [True] * 4, [True, True, False, False]]
    _, actions = columns(dataset_root, 0)
    assert result.recorded[1] == pytest.approx(actions[5:9])
    assert (result.dataset_frames, result.dataset_episodes) == (36, 3)


def test_trained_or_absent_episodes_are_refused(dataset_root, use_policy):
    use_policy(lambda state, picture: state)
    with pytest.raises(ValueError, match="was trained on"):
        check_open_loop(Path("x"), dataset_root, 1, [0, 1], PERCENT)
    with pytest.raises(ValueError, match=r"episodes 0\.\.2"):
        check_open_loop(Path("x"), dataset_root, 3, [0, 1], PERCENT)


def test_an_absent_checkpoint_is_named(dataset_root, tmp_path):
    with pytest.raises(FileNotFoundError, match="pretrained_model"):
        check_open_loop(tmp_path / "nothing", dataset_root, 2, [0], PERCENT)


@pytest.mark.parametrize("count", [2, 3, 17])
def test_derangement_moves_everything(count):
    order = derangement(count, seed=0)
    assert sorted(order) == list(range(count))
    assert all(order != np.arange(count))
    assert derangement(count, seed=0).tolist() == order.tolist()


def test_one_frame_cannot_be_shuffled():
    with pytest.raises(ValueError, match="at least 2 frames"):
        derangement(1, seed=0)


def test_units():
    # 1024..3072 ticks: half a turn, so 0..100 % is -90..90 degrees, but for LeRobot's 4095
    joint = JointCalibration(id=6, drive_mode=0, homing_offset=0, range_min=1024, range_max=3072)
    half_deg = 1024 * 360 / 4095
    values = np.array([[10.0, 0.0], [-20.0, 100.0]])
    with_calibration = ArmUnits(use_degrees=True, calibration={"elbow_flex": joint, "gripper": joint})
    names = ["elbow_flex", "gripper"]
    assert with_calibration.convert(values, names) == pytest.approx(np.array([[10, -half_deg], [-20, half_deg]]))
    assert [with_calibration.unit(name) for name in names] == ["deg", "deg"]
    percent = ArmUnits(use_degrees=False, calibration={"elbow_flex": joint})
    assert percent.convert(values, names) == pytest.approx(np.array([[0.1 * half_deg, 0], [-0.2 * half_deg, 100]]))
    assert [percent.unit(name) for name in names] == ["deg", "%"]


def test_the_mean_counts_degrees_only(dataset_root, use_policy):
    use_policy(lambda state, picture: state + np.array([2, 2, 2, 2, 2, 101], dtype=np.float64))
    result = check_open_loop(Path("x"), dataset_root, 2, [0, 1], PERCENT)
    assert result.units == ["deg"] * 5 + ["%"]
    assert result.mean_unit == "deg"
    assert result.mean_error(POLICY) == pytest.approx(result.errors[POLICY][:5].mean())


def test_a_checkpoint_of_lerobot_train(dataset_root, tmp_path, lerobot_train):
    lerobot_train(*train_options(dataset_root, tmp_path / "run", "--dataset.episodes=[0, 1]", steps=1))
    checkpoint = tmp_path / "run" / "checkpoints" / "last" / "pretrained_model"
    result = check_open_loop(checkpoint, dataset_root, 2, [0, 1], PERCENT, stride=4)
    assert result.predicted.shape == (3, 8, len(JOINTS))
    assert np.isfinite(result.predicted).all()
    again = check_open_loop(checkpoint, dataset_root, 2, [0, 1], PERCENT, stride=4)
    assert np.array_equal(again.predicted, result.predicted)
    frames = open_loop.LeRobotDataset("tests/small", root=dataset_root, episodes=[2])
    saved = SavedPolicy.load(checkpoint)
    # the recorded action must not leak into the prediction
    blind = {k: v for k, v in frames[0].items() if k != "action"}
    state = torch.random.get_rng_state()
    assert np.array_equal(saved.predict([blind], 0), saved.predict([frames[0]], 0))
    assert torch.equal(torch.random.get_rng_state(), state)
