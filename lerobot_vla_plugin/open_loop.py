"""Open-loop check: chunks that a checkpoint predicts from recorded frames, beside the recorded actions.

No robot and no command of ours is needed: the checkpoint is loaded knowing only LeRobot, its own processors included.

Shapes: n frames looked at, c steps of a chunk, j joints.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.datasets import LeRobotDataset, LeRobotDatasetMetadata
from lerobot.policies.factory import get_policy_class, make_pre_post_processors
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.processor import PolicyProcessorPipeline
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE
from lerobot.utils.import_utils import register_third_party_plugins
from numpy.typing import NDArray
from torch.utils.data import default_collate

from .arm_units import ArmUnits

POLICY = "policy"
HOLD_STILL = "hold still"
MEAN_ACTION = "mean action"
SHUFFLED_IMAGES = "shuffled images"

# Below this ratio of errors, shuffled images do no harm worth the name: the policy works from its joints alone.
_CLEARLY_WORSE = 1.1
_BATCH_FRAMES = 16
_VIDEO_BACKEND = "pyav"  # the one that needs no system ffmpeg


@dataclass(frozen=True)
class OpenLoopResult:
    """What the check found, in the units that `units` names.

    Attributes:
        dataset_frames: Frames of the whole data set.
        dataset_episodes: Its episodes.
        episode: Index of the episode looked at.
        fps_hz: Rate of the data set.
        joints: Names, (j).
        units: "deg" or "%" of each joint.
        frames: Index of each frame looked at, counted from the start of the episode, (n,).
        steps: Step of each action of a chunk, counted from its frame, (c,).
        predicted: Chunks of the policy, (n, c, j).
        recorded: Recorded actions of the same steps, (n, c, j).
        inside: Whether the step lies inside the episode, (n, c).
        errors: Name of a predictor -> mean absolute error over frames and steps inside the episode, (j,).
    """

    dataset_frames: int
    dataset_episodes: int
    episode: int
    fps_hz: float
    joints: Sequence[str]
    units: Sequence[str]
    frames: NDArray[np.int64]
    steps: NDArray[np.int64]
    predicted: NDArray[np.float64]
    recorded: NDArray[np.float64]
    inside: NDArray[np.bool_]
    errors: Mapping[str, NDArray[np.float64]]

    @property
    def mean_unit(self) -> str:
        """Unit of `mean_error`: "deg" if any joint is in degrees, else "%"."""
        return "deg" if "deg" in self.units else "%"

    def mean_error(self, predictor: str) -> float:
        """Mean over the joints that are in `mean_unit`.

        Args:
            predictor: A key of `errors`.
        """
        counted = [unit == self.mean_unit for unit in self.units]
        return float(np.mean(self.errors[predictor][counted]))

    @property
    def beats_baselines(self) -> bool:
        """Whether the policy errs less than holding still and than the mean action."""
        error = self.mean_error(POLICY)
        return error < self.mean_error(HOLD_STILL) and error < self.mean_error(MEAN_ACTION)

    @property
    def looks_at_images(self) -> bool:
        """Whether pictures of other frames make the policy clearly worse."""
        return self.mean_error(SHUFFLED_IMAGES) >= _CLEARLY_WORSE * self.mean_error(POLICY)


@dataclass(frozen=True)
class SavedPolicy:
    """A checkpoint as LeRobot's factory loads it.

    Attributes:
        policy: In evaluation mode.
        preprocessor: Observations of the data set -> batch.
        postprocessor: Normalised actions -> robot units.
    """

    policy: PreTrainedPolicy
    preprocessor: PolicyProcessorPipeline
    postprocessor: PolicyProcessorPipeline

    @classmethod
    def load(cls, checkpoint: Path) -> "SavedPolicy":
        """Load a checkpoint of any policy that LeRobot or a plugin knows.

        Args:
            checkpoint: Folder `pretrained_model` that `lerobot-train` wrote.

        Raises:
            FileNotFoundError: No such folder.
        """
        if not checkpoint.is_dir():
            raise FileNotFoundError(
                f"no checkpoint {checkpoint}; expected the folder `pretrained_model` of a training run"
            )
        register_third_party_plugins()
        config = PreTrainedConfig.from_pretrained(str(checkpoint))
        policy = get_policy_class(config.type).from_pretrained(str(checkpoint))
        return cls(policy, *make_pre_post_processors(config, pretrained_path=str(checkpoint)))

    def predict(self, frames: Sequence[Mapping[str, Any]], seed: int) -> NDArray[np.float64]:
        """Predict a chunk from each frame, (n, c, j), in robot units.

        Args:
            frames: Frames of a data set; only observations and task reach the policy.
            seed: Same seed, same noise: predictions differ only where the frames do.
        """
        seen = [{k: v for k, v in frame.items() if k.startswith("observation.") or k == "task"} for frame in frames]
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(seed)
            actions = self.policy.predict_action_chunk(self.preprocessor(default_collate(seen)))
        return self.postprocessor(actions).double().numpy()


def check_open_loop(
    checkpoint: Path,
    dataset_root: Path,
    episode: int,
    train_episodes: Sequence[int],
    units: ArmUnits,
    *,
    stride: int = 1,
    seed: int = 0,
) -> OpenLoopResult:
    """Compare predicted with recorded chunks on one episode, beside two baselines and with the images shuffled.

    Args:
        checkpoint: Folder `pretrained_model` that `lerobot-train` wrote.
        dataset_root: Folder of the data set.
        episode: Episode to predict; one that was not trained on, for an honest answer.
        train_episodes: Episodes whose mean action is the baseline.
        units: Units of the data set.
        stride: Look at every so many frames.
        seed: Of the policy's noise and of the order of the shuffled images.

    Raises:
        ValueError: The episode does not exist or was trained on.
    """
    meta = LeRobotDatasetMetadata(dataset_root.name, root=dataset_root)
    _check_episode(meta, episode, train_episodes)
    saved = SavedPolicy.load(checkpoint)
    data = LeRobotDataset(meta.repo_id, root=meta.root, episodes=[episode], video_backend=_VIDEO_BACKEND)
    frames = np.arange(0, len(data), stride)
    steps = np.asarray(saved.policy.config.action_delta_indices)
    shuffled = frames[derangement(len(frames), seed)]

    predicted = _predict_all(saved, data, frames, frames, seed)
    misled = _predict_all(saved, data, frames, shuffled, seed)
    states, recorded, inside = _read_targets(data, frames, steps)
    mean_action = _mean_action(meta, train_episodes)

    joints = _joint_names(meta)
    in_units = {
        name: units.convert(values, joints)
        for name, values in {
            POLICY: predicted,
            HOLD_STILL: np.broadcast_to(states[:, None, :], recorded.shape),
            MEAN_ACTION: np.broadcast_to(mean_action, recorded.shape),
            SHUFFLED_IMAGES: misled,
        }.items()
    }
    target = units.convert(recorded, joints)
    return OpenLoopResult(
        dataset_frames=meta.total_frames,
        dataset_episodes=meta.total_episodes,
        episode=episode,
        fps_hz=meta.fps,
        joints=joints,
        units=[units.unit(joint) for joint in joints],
        frames=frames,
        steps=steps,
        predicted=in_units[POLICY],
        recorded=target,
        inside=inside,
        errors={name: mean_absolute_error(values, target, inside) for name, values in in_units.items()},
    )


def mean_absolute_error(
    predicted: NDArray[np.float64], recorded: NDArray[np.float64], inside: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Mean absolute error of each joint over the steps that lie inside the episode, (j,).

    Args:
        predicted: Chunks, (n, c, j).
        recorded: What was recorded, (n, c, j).
        inside: Which steps count, (n, c).
    """
    return np.abs(predicted - recorded)[inside].mean(axis=0)


def derangement(count: int, seed: int) -> NDArray[np.int64]:
    """A random permutation of 0..count-1 that leaves nothing in its place.

    Args:
        count: At least 2.
        seed: Of the permutation.

    Raises:
        ValueError: Fewer than two things cannot all change places.
    """
    if count < 2:
        raise ValueError(
            f"shuffling images needs at least 2 frames, got {count}; take a longer episode or a smaller stride"
        )
    order = np.random.default_rng(seed).permutation(count)
    shuffled = np.empty(count, dtype=np.int64)
    shuffled[order] = np.roll(order, 1)  # one cycle through all of them
    return shuffled


def _check_episode(meta: LeRobotDatasetMetadata, episode: int, train_episodes: Sequence[int]) -> None:
    if not 0 <= episode < meta.total_episodes:
        raise ValueError(f"episode {episode} does not exist; {meta.root} has episodes 0..{meta.total_episodes - 1}")
    if episode in train_episodes:
        raise ValueError(f"episode {episode} was trained on; hold one out with --dataset.episodes of lerobot-train")


def _joint_names(meta: LeRobotDatasetMetadata) -> list[str]:
    states, actions = (list(meta.features[key]["names"]) for key in (OBS_STATE, ACTION))
    if states != actions:
        raise ValueError(f"holding still needs state and action of the same joints, got {states} and {actions}")
    return [name.removesuffix(".pos") for name in actions]


def _predict_all(
    saved: SavedPolicy, data: LeRobotDataset, frames: NDArray[np.int64], images_of: NDArray[np.int64], seed: int
) -> NDArray[np.float64]:
    """Predictions from `frames`, each seeing the pictures of the frame at its place in `images_of`."""
    chunks = []
    for start in range(0, len(frames), _BATCH_FRAMES):
        part = slice(start, start + _BATCH_FRAMES)
        batch = [_with_images_of(data, int(i), int(k)) for i, k in zip(frames[part], images_of[part], strict=True)]
        chunks.append(saved.predict(batch, seed + start))
    return np.concatenate(chunks)


def _with_images_of(data: LeRobotDataset, frame: int, other: int) -> dict[str, Any]:
    # LeRobot declares that an index may give a list of frames; a number gives one.
    item: Any = data[frame]
    if other == frame:
        return item
    shown: Any = data[other]
    return {**item, **{key: value for key, value in shown.items() if key.startswith(OBS_IMAGES)}}


def _read_targets(
    data: LeRobotDataset, frames: NDArray[np.int64], steps: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """States (n, j), recorded chunks (n, c, j) and which of their steps lie inside the episode (n, c)."""
    columns = data.hf_dataset.with_format("numpy", columns=[OBS_STATE, ACTION])
    states, actions = np.stack(columns[OBS_STATE][:]), np.stack(columns[ACTION][:])
    at = frames[:, None] + steps
    inside = (at >= 0) & (at < len(actions))
    recorded = actions[np.clip(at, 0, len(actions) - 1)]
    return states[frames].astype(np.float64), recorded.astype(np.float64), inside


def _mean_action(meta: LeRobotDatasetMetadata, episodes: Sequence[int]) -> NDArray[np.float64]:
    data = LeRobotDataset(meta.repo_id, root=meta.root, episodes=list(episodes), video_backend=_VIDEO_BACKEND)
    return np.stack(data.hf_dataset.with_format("numpy", columns=[ACTION])[ACTION][:]).mean(axis=0, dtype=np.float64)
