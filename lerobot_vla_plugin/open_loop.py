"""Open-loop check: chunks that a checkpoint predicts from recorded frames, beside the recorded actions.

No robot and no command of ours is needed: the checkpoint is loaded knowing only LeRobot, its own processors included.

Shapes: n frames looked at, c steps of a chunk, j joints.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lerobot.datasets import LeRobotDataset, LeRobotDatasetMetadata
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE
from numpy.typing import NDArray

from .action_tokenizers.chunk_codec import ChunkCodec
from .arm_units import ArmUnits, recorded_units
from .arms.dataset_contract import feature_joint_names
from .open_loop_result import (
    HOLD_STILL,
    MEAN_ACTION,
    POLICY,
    SHUFFLED_IMAGES,
    TOKENIZER,
    EpisodeChunks,
    OpenLoopResult,
    spread,
)
from .saved_policy import Prediction, SavedPolicy
from .training_episodes import TrainingEpisodes, read_training_episodes

_BATCH_FRAMES = 16
_VIDEO_BACKEND = "pyav"  # the one that needs no system ffmpeg


class OpenLoopCheck:
    """A checkpoint and a data set, found to fit each other.

    Args:
        saved: The checkpoint.
        dataset_root: Folder of the data set.
        seed: Of the policy's noise and of the order of the shuffled images.

    Attributes:
        meta: The data set's metadata.
        training: Which of its episodes the checkpoint was trained on.

    Raises:
        ValueError: The data set has other joints than the checkpoint, or another unit.
    """

    def __init__(self, saved: SavedPolicy, dataset_root: Path, seed: int = 0) -> None:
        self.meta = LeRobotDatasetMetadata(dataset_root.name, root=dataset_root)
        states, actions = (feature_joint_names(self.meta.features.get(key, {})) for key in (OBS_STATE, ACTION))
        if not actions or states != actions:
            raise ValueError(f"holding still needs state and action of the same joints, got {states} and {actions}")
        saved.check_predicts_from_one_frame()
        saved.check_joints(states, actions)
        self.training: TrainingEpisodes = read_training_episodes(saved.folder, self.meta)
        self._joints = [name.removesuffix(".pos") for name in actions]
        self._units: ArmUnits = recorded_units(dataset_root, getattr(saved.policy.config, "contract", None))
        self._saved = saved
        self._seed = seed

    def run(self, episodes: Sequence[int], max_frames: int | None = None) -> OpenLoopResult:
        """Compare predicted with recorded chunks, beside two baselines and with the images shuffled.

        Args:
            episodes: Episodes to predict; ones that were not trained on, for an honest answer.
            max_frames: Look at so many frames of each, evenly spread; None looks at all.

        Raises:
            ValueError: An episode does not exist or is too short, or the data set lacks a camera.
        """
        last = self.meta.total_episodes - 1
        absent = [episode for episode in episodes if not 0 <= episode <= last]
        if absent:
            raise ValueError(f"there is no episode {absent}; {self.meta.root} has episodes 0..{last}")
        others = [episode for episode in range(last + 1) if episode not in episodes]
        mean_action = self._columns(others or episodes)[1].mean(axis=0)
        return OpenLoopResult(
            dataset_frames=self.meta.total_frames,
            dataset_episodes=self.meta.total_episodes,
            fps_hz=self.meta.fps,
            joints=self._joints,
            units=[self._units.unit(joint) for joint in self._joints],
            steps=self._saved.steps,
            episodes=[self._predict_episode(episode, mean_action, max_frames) for episode in episodes],
        )

    def _predict_episode(self, episode: int, mean_action: NDArray, max_frames: int | None) -> EpisodeChunks:
        data = self._load([episode])
        states, actions = self._columns([episode])
        frames = spread(len(data), max_frames)
        at = frames[:, None] + self._saved.steps
        recorded = actions[np.clip(at, 0, len(actions) - 1)]
        predictions = {
            POLICY: self._predict(data, frames, frames),
            HOLD_STILL: Prediction(np.broadcast_to(states[frames][:, None], recorded.shape)),
            MEAN_ACTION: Prediction(np.broadcast_to(mean_action, recorded.shape)),
            SHUFFLED_IMAGES: self._predict(data, frames, frames[derangement(len(frames), self._seed)]),
        }
        if self._saved.codec:
            predictions[TOKENIZER] = _through(self._saved.codec, recorded, states[frames])
        counts = {name: prediction.token_counts for name, prediction in predictions.items()}
        return EpisodeChunks(
            episode=episode,
            standing=self.training.standing(episode),
            frames=frames,
            actions=self._units.convert(actions, self._joints),
            inside=(at >= 0) & (at < len(actions)),
            recorded=self._units.convert(recorded, self._joints),
            predicted={name: self._units.convert(p.chunks, self._joints) for name, p in predictions.items()},
            token_counts={name: count for name, count in counts.items() if count is not None},
        )

    def _predict(self, data: LeRobotDataset, frames: NDArray[np.int64], images_of: NDArray[np.int64]) -> Prediction:
        """Predictions from `frames`, each seeing the pictures of the frame at its place in `images_of`."""
        parts = []
        for start in range(0, len(frames), _BATCH_FRAMES):
            part = slice(start, start + _BATCH_FRAMES)
            batch = [_with_images_of(data, int(i), int(k)) for i, k in zip(frames[part], images_of[part], strict=True)]
            parts.append(self._saved.predict(batch, self._seed + start))
        chunks = np.concatenate([part.chunks for part in parts])
        counts = [part.token_counts for part in parts if part.token_counts is not None]
        return Prediction(chunks, np.concatenate(counts) if counts else None)

    def _columns(self, episodes: Sequence[int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """States and actions of episodes in the data set's unit, (frames, j) each."""
        columns = self._load(episodes).hf_dataset.with_format("numpy", columns=[OBS_STATE, ACTION])
        states, actions = (np.stack(columns[key][:]).astype(np.float64) for key in (OBS_STATE, ACTION))
        return states, actions

    def _load(self, episodes: Sequence[int]) -> LeRobotDataset:
        return LeRobotDataset(
            self.meta.repo_id, root=self.meta.root, episodes=list(episodes), video_backend=_VIDEO_BACKEND
        )


def derangement(count: int, seed: int) -> NDArray[np.int64]:
    """A random permutation of 0..count-1 that leaves nothing in its place.

    Args:
        count: At least 2.
        seed: Of the permutation.

    Raises:
        ValueError: Fewer than two things cannot all change places.
    """
    if count < 2:
        raise ValueError(f"shuffling images needs at least 2 frames, got {count}; take a longer episode")
    order = np.random.default_rng(seed).permutation(count)
    shuffled = np.empty(count, dtype=np.int64)
    shuffled[order] = np.roll(order, 1)  # one cycle through all of them
    return shuffled


def _with_images_of(data: LeRobotDataset, frame: int, other: int) -> dict[str, Any]:
    # LeRobot declares that an index may give a list of frames; a number gives one.
    item: Any = data[frame]
    if other == frame:
        return item
    shown: Any = data[other]
    return {**item, **{key: value for key, value in shown.items() if key.startswith(OBS_IMAGES)}}


def _through(codec: ChunkCodec, recorded: NDArray, states: NDArray) -> Prediction:
    """Recorded chunks as they come back from tokens: no policy that predicts these tokens can do much better."""
    ids = codec.encode(recorded, states)
    return Prediction(codec.decode(ids, states), np.array([len(sequence) for sequence in ids]))
