"""The open-loop check against numbers computed by hand, and against a checkpoint that LeRobot wrote."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import JOINTS, write_dataset
from lerobot.datasets import LeRobotDataset

from lerobot_vla_plugin.action_tokenizers.chunk_codec import ChunkCodec
from lerobot_vla_plugin.action_tokens import ActionTokens
from lerobot_vla_plugin.arm_units import AS_RECORDED, ArmUnits, recorded_units
from lerobot_vla_plugin.arms.annotation import ArmAnnotation, write_annotation
from lerobot_vla_plugin.arms.calibration import JointCalibration
from lerobot_vla_plugin.arms.contract_terms import ArmContract
from lerobot_vla_plugin.arms.joints import JointConverter, NormMode
from lerobot_vla_plugin.open_loop import OpenLoopCheck, derangement
from lerobot_vla_plugin.open_loop_result import HOLD_STILL, MEAN_ACTION, POLICY, SHUFFLED_IMAGES, TOKENIZER, spread
from lerobot_vla_plugin.saved_policy import Prediction, SavedPolicy, find_checkpoint

CHUNK = 4
# 1024..3072 ticks: half a turn, so 0..100 % is -90..90 degrees, but for LeRobot's 4095.
HALF_TURN = JointCalibration(id=6, drive_mode=0, homing_offset=0, range_min=1024, range_max=3072)
HALF_DEG = 1024 * 360 / 4095


def config_of(joints: int = len(JOINTS), contract: ArmContract | None = None, cameras=("front", "wrist")):
    """As much of a policy's configuration as the check looks at."""
    feature = SimpleNamespace(shape=(joints,))
    return SimpleNamespace(
        action_delta_indices=list(range(CHUNK)),
        observation_delta_indices=None,
        action_feature=feature,
        robot_state_feature=feature,
        image_features={f"observation.images.{camera}": None for camera in cameras},
        contract=contract,
    )


@dataclass(frozen=True)
class FakePolicy(SavedPolicy):
    """Stands in for a loaded checkpoint: predicts what a function of (state, mean of the front picture) says."""

    folder: Path = Path("nowhere")
    policy: object = field(default_factory=lambda: SimpleNamespace(config=config_of()))
    preprocessor: object = None
    postprocessor: object = None
    says: object = None

    def predict(self, frames, seed):
        values = [
            self.says(f["observation.state"].numpy(), f["observation.images.front"].mean().item()) for f in frames
        ]
        return Prediction(np.repeat(np.array(values, dtype=np.float64)[:, None], CHUNK, axis=1))


@pytest.fixture
def check(dataset_root):
    """A check of a policy that says what a function does, on the small data set."""
    return lambda says, root=dataset_root: OpenLoopCheck(FakePolicy(says=says), root)


def columns(root: Path, episode: int) -> tuple[np.ndarray, np.ndarray]:
    """States and actions of an episode, read without the code under test."""
    import pandas as pd

    frames = pd.concat(pd.read_parquet(path) for path in sorted(root.glob("data/**/*.parquet")))
    frames = frames[frames.episode_index == episode]
    return np.stack(frames["observation.state"]), np.stack(frames["action"])


def pairs(length: int) -> list[tuple[int, int]]:
    """Frame and step of every action that lies inside an episode."""
    return [(t, t + k) for t in range(length) for k in range(CHUNK) if t + k < length]


def test_baselines_are_those_of_the_data(dataset_root, check):
    result = check(lambda state, picture: state).run([2])
    states, actions = columns(dataset_root, 2)
    mean = np.concatenate([columns(dataset_root, e)[1] for e in (0, 1)]).mean(axis=0)
    hold = [np.abs(states[t] - actions[k]) for t, k in pairs(len(states))]
    still = [np.abs(mean - actions[k]) for _, k in pairs(len(states))]
    assert result.errors[HOLD_STILL] == pytest.approx(np.mean(hold, axis=0), rel=1e-5)
    assert result.errors[MEAN_ACTION] == pytest.approx(np.mean(still, axis=0), rel=1e-5)
    # this policy is the hold-still baseline, so it cannot beat it
    assert result.errors[POLICY] == pytest.approx(np.mean(hold, axis=0), rel=1e-5)
    assert result.percentile_99 == pytest.approx(np.percentile(hold, 99, axis=0), rel=1e-5)
    assert result.largest == pytest.approx(np.max(hold, axis=0), rel=1e-5)
    assert not result.beats_baselines


def test_errors_along_the_chunk(dataset_root, check):
    result = check(lambda state, picture: state).run([2])
    states, actions = columns(dataset_root, 2)
    by_step = [np.abs(states[: len(states) - k] - actions[k:]).mean() for k in range(CHUNK)]
    assert result.error_by_step(POLICY) == pytest.approx(by_step, rel=1e-5)
    assert by_step[-1] > 2 * by_step[0]


def test_several_episodes_count_together(dataset_root, check):
    together = check(lambda state, picture: state).run([0, 2])
    alone = [check(lambda state, picture: state).run([episode]) for episode in (0, 2)]
    assert together.errors[POLICY] == pytest.approx(np.mean([r.errors[POLICY] for r in alone], axis=0))
    assert [episode.episode for episode in together.episodes] == [0, 2]
    mean = columns(dataset_root, 1)[1].mean(axis=0)  # of the only episode that is not looked at
    assert together.episodes[1].predicted[MEAN_ACTION][3, 2] == pytest.approx(mean, rel=1e-5)


def test_a_policy_without_eyes_is_found_out(check):
    result = check(lambda state, picture: state + 1).run([2])
    assert result.errors[SHUFFLED_IMAGES] == pytest.approx(result.errors[POLICY])
    assert result.beats_baselines
    assert not result.looks_at_images


def test_a_policy_that_reads_the_picture_gets_worse_when_shuffled(tmp_path, check):
    root = tmp_path / "seen"
    write_dataset(root, num_episodes=2)
    result = check(lambda state, picture: state + 1000 * picture, root).run([1])
    assert not np.allclose(result.errors[SHUFFLED_IMAGES], result.errors[POLICY])


def test_frames_are_spread_over_the_episode(dataset_root, check):
    result = check(lambda state, picture: state).run([0], max_frames=3)
    episode = result.episodes[0]
    assert episode.frames.tolist() == [0, 6, 11]
    assert episode.inside.tolist() == [[True] * 4, [True] * 4, [True, False, False, False]]
    _, actions = columns(dataset_root, 0)
    assert episode.recorded[1] == pytest.approx(actions[6:10])
    assert episode.actions == pytest.approx(actions)
    assert (result.dataset_frames, result.dataset_episodes) == (36, 3)


@pytest.mark.parametrize(("count", "at_most"), [(5, None), (5, 9), (100, 7), (2, 2)])
def test_spread_keeps_both_ends(count, at_most):
    chosen = spread(count, at_most)
    assert (chosen[0], chosen[-1], len(chosen)) == (0, count - 1, min(count, at_most or count))
    assert (np.diff(chosen) > 0).all()


def test_an_absent_episode_is_named(check):
    with pytest.raises(ValueError, match=r"no episode \[3\]; .* has episodes 0\.\.2"):
        check(lambda state, picture: state).run([1, 3])


@pytest.mark.parametrize("count", [2, 3, 17])
def test_derangement_moves_everything(count):
    order = derangement(count, seed=0)
    assert sorted(order) == list(range(count))
    assert all(order != np.arange(count))
    assert derangement(count, seed=0).tolist() == order.tolist()


def test_one_frame_cannot_be_shuffled():
    with pytest.raises(ValueError, match="at least 2 frames"):
        derangement(1, seed=0)


# Whether checkpoint and data set fit --------------------------------------------------------------------------------


def test_other_joints_are_refused(dataset_root):
    def open_with(config) -> OpenLoopCheck:
        return OpenLoopCheck(FakePolicy(policy=SimpleNamespace(config=config)), dataset_root)

    swapped = ArmContract(joint_names=[f"{joint}.pos" for joint in reversed(JOINTS)])
    with pytest.raises(ValueError, match=r"trained on the joints \['gripper.pos'"):
        open_with(config_of(contract=swapped))
    with pytest.raises(ValueError, match="trained on 7 joints"):
        open_with(config_of(joints=7))


def test_another_unit_is_refused(tmp_path):
    write_dataset(tmp_path / "data", num_episodes=1)
    calibration = {joint: replace(HALF_TURN, id=number) for number, joint in enumerate(JOINTS, 1)}
    annotation = ArmAnnotation("so_follower", "mine", "percent", calibration)
    write_annotation(tmp_path / "data", annotation)
    assert recorded_units(tmp_path / "data", ArmContract()).unit("gripper") == "deg"
    with pytest.raises(ValueError, match=r"trained in degrees, .* recorded in percent"):
        recorded_units(tmp_path / "data", ArmContract(joint_unit="degrees"))


def test_an_absent_camera_is_named(trained, tmp_path):
    root = tmp_path / "one_camera"
    write_dataset(root, num_episodes=1, cameras=("front",), height=96, width=128)
    saved = SavedPolicy.load(find_checkpoint(trained))
    with pytest.raises(
        ValueError, match=r"lacks observation\.images\.wrist.* its cameras are observation.images.front"
    ):
        OpenLoopCheck(saved, root).run([0])


def test_an_absent_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint .*nothing.*pretrained_model"):
        find_checkpoint(tmp_path / "nothing")


# Units ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("joint", ["elbow_flex", "gripper"])
@pytest.mark.parametrize("mirrored", [False, True])
def test_percent_become_the_degrees_of_the_arm(joint, mirrored):
    """The same angle from the middle as by way of ticks; mirrored joints keep the direction of their percent."""
    calibration = JointCalibration(id=1, drive_mode=int(mirrored), homing_offset=0, range_min=700, range_max=3300)
    units = ArmUnits.of_annotation(ArmAnnotation("so_follower", "mine", "percent", {joint: calibration}))
    mode = NormMode.GRIPPER if joint == "gripper" else NormMode.PERCENT
    percent = np.linspace(0 if joint == "gripper" else -100, 100, 9)[:, None]

    def converter(mode) -> JointConverter:
        return JointConverter({joint: calibration}, {joint: mode}, inverts_in_software=True)

    expected = converter(NormMode.DEGREES).to_units(converter(mode).to_exact_ticks(percent))
    assert units.convert(percent, [joint]) == pytest.approx(-expected if mirrored else expected)
    assert units.unit(joint) == "deg"


def test_units_by_hand():
    ranges = {"gripper": 2 * HALF_DEG}
    names = ["elbow_flex", "gripper"]
    values = np.array([[10.0, 0.0], [-20.0, 100.0]])
    degrees = ArmUnits("degrees", ranges)
    assert degrees.convert(values, names) == pytest.approx(np.array([[10, -HALF_DEG], [-20, HALF_DEG]]))
    assert [degrees.unit(name) for name in names] == ["deg", "deg"]
    percent = ArmUnits("percent")
    assert percent.convert(values, names) == pytest.approx(values)
    assert [percent.unit(name) for name in names] == ["%", "%"]
    unknown = ArmUnits()
    assert unknown.convert(values, names) == pytest.approx(values)
    assert unknown.unit("gripper") == AS_RECORDED


# A real checkpoint --------------------------------------------------------------------------------------------------


def test_a_real_checkpoint_predicts_in_robot_units(trained, twin_sized_root):
    saved = SavedPolicy.load(find_checkpoint(trained))
    first, second = (OpenLoopCheck(saved, twin_sized_root).run([1], max_frames=4) for _ in range(2))
    predicted = first.episodes[0].predicted[POLICY]
    assert predicted.shape == (4, 8, len(JOINTS))
    assert np.isfinite(predicted).all()
    assert np.array_equal(predicted, second.episodes[0].predicted[POLICY])  # the noise is the same
    assert first.units == ["deg"] * 5 + ["%"]  # as the checkpoint's contract says
    assert first.mean_error(POLICY) == pytest.approx(first.errors[POLICY][:5].mean())


def test_the_recorded_action_does_not_leak_into_the_prediction(trained, twin_sized_root):
    saved = SavedPolicy.load(trained)
    frame = LeRobotDataset("tests/small", root=twin_sized_root)[0]
    blind = {key: value for key, value in frame.items() if key != "action"}
    state = torch.random.get_rng_state()
    assert np.array_equal(saved.predict([blind], 0).chunks, saved.predict([frame], 0).chunks)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_what_the_tokenizer_loses_is_shown_apart(dataset_root):
    """A policy of tokens: what comes back from the recorded chunks is a predictor of its own."""
    states, actions = columns(dataset_root, 0)
    chunks = np.stack([actions[i : i + CHUNK] for i in range(len(actions) - CHUNK + 1)])
    codec = ChunkCodec.fit(chunks, states[: len(chunks)], JOINTS, "bins")
    policy = SimpleNamespace(config=config_of(), action_tokens=ActionTokens(codec))
    result = OpenLoopCheck(FakePolicy(policy=policy, says=lambda state, picture: state), dataset_root).run([0])
    whole = result.episodes[0].inside.all(axis=1)
    expected = codec.decode(codec.encode(chunks, states[: len(chunks)]), states[: len(chunks)])
    assert result.episodes[0].predicted[TOKENIZER][whole] == pytest.approx(expected)
    assert 0 < result.mean_error(TOKENIZER) < 0.5
    assert set(result.token_counts[TOKENIZER]) == {CHUNK * len(JOINTS)}


@pytest.mark.parametrize(
    "changes", [{"observation_delta_indices": [-1, 0]}, {"action_delta_indices": None}], ids=["looks back", "no chunk"]
)
def test_a_policy_that_one_frame_does_not_suffice_for_is_refused(dataset_root, changes):
    config = SimpleNamespace(**{**vars(config_of()), "type": "diffusion", **changes})
    with pytest.raises(ValueError, match=r"of a diffusion.*expected a policy that predicts a chunk from one frame"):
        OpenLoopCheck(FakePolicy(policy=SimpleNamespace(config=config)), dataset_root)
