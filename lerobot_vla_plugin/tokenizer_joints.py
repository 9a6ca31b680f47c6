"""The recorded joints that action tokenizers are fitted to: of a LeRobot data set, or of a bare parquet file."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from lerobot.utils.constants import ACTION, OBS_STATE
from numpy.typing import NDArray

from .action_tokenizers.chunk_windows import action_chunks
from .arms.robot_types import JOINT_NAMES
from .joint_dataset import (
    EPISODE_INDEX,
    JointFeature,
    find_dataset,
    integer_column,
    joint_features,
    read_episode_index,
    read_info,
    read_vectors,
    to_vectors,
)

_FRAME_INDEX = "frame_index"
# Neighbouring chunks differ in one step: more of them take longer and teach nothing.
ENOUGH_CHUNKS = 10_000


@dataclass(frozen=True)
class RecordedJoints:
    """What an arm was told and where it was, frame by frame.

    Attributes:
        source: Folder of the data set, or the parquet file.
        joint_names: Joints, without LeRobot's ".pos", (j).
        actions: Recorded actions, (frames, j), in robot units.
        states: Recorded positions of the same joints, (frames, j).
        episode_index: Episode of each frame, (frames,).
    """

    source: Path
    joint_names: tuple[str, ...]
    actions: NDArray
    states: NDArray
    episode_index: NDArray[np.int64]

    @property
    def episodes(self) -> list[int]:
        """Episodes, in the order of recording."""
        return list(self.episode_lengths)

    @property
    def episode_lengths(self) -> dict[int, int]:
        """Episode -> its frames, in the order of recording."""
        return dict(Counter(self.episode_index.tolist()))

    @property
    def span(self) -> tuple[NDArray, NDArray]:
        """Smallest and largest action of each joint, (j,) each."""
        return self.actions.min(axis=0), self.actions.max(axis=0)

    @property
    def sparing_stride(self) -> int:
        """Frames from one chunk to the next so that there are enough chunks, but not many more."""
        return max(1, len(self.actions) // ENOUGH_CHUNKS)

    def of_episodes(self, episodes: Sequence[int]) -> Self:
        """The frames of some episodes."""
        chosen = np.isin(self.episode_index, episodes)
        arrays = (values[chosen] for values in (self.actions, self.states, self.episode_index))
        return type(self)(self.source, self.joint_names, *arrays)

    def chunks(self, chunk_size: int, stride: int | None = None) -> tuple[NDArray, NDArray]:
        """Chunks, (n, chunk_size, j), and the state at the first step of each, (n, j); see `action_chunks`.

        Args:
            chunk_size: Steps of a chunk.
            stride: Frames from one chunk of an episode to the next; None for `sparing_stride`.

        Raises:
            ValueError: No episode is as long as a chunk.
        """
        stride = self.sparing_stride if stride is None else stride
        chunks, first_frames = action_chunks(self.actions, self.episode_index, chunk_size, stride)
        return chunks, self.states[first_frames]


def read_joints(name: str, root: Path | None = None) -> RecordedJoints:
    """Read the joints of a data set.

    Args:
        name: Folder or repo id of a LeRobot data set, or a parquet file with the columns action, observation.state and
            episode_index.
        root: The folder, as in LeRobot's `--dataset.root`.

    Raises:
        FileNotFoundError: There is no such data set.
        ValueError: It holds no joints, or values that are not finite, or columns of another type or order.
    """
    if root is None and Path(name).is_file():
        return _read_parquet(Path(name))
    return _read_dataset(find_dataset(name, root))


def _read_dataset(root: Path) -> RecordedJoints:
    info = read_info(root)
    features = {feature.key: feature for feature in joint_features(info)}
    missing = {ACTION, OBS_STATE} - features.keys()
    if missing:
        raise ValueError(f"{root} has no joints in {sorted(missing)}; both actions and states are needed")
    names = {key: list(info.features[key]["names"]) for key in features}
    absent = sorted(set(names[ACTION]) - set(names[OBS_STATE]))
    if absent:
        raise ValueError(f"{root}: {ACTION} has {absent}, {OBS_STATE} has only {names[OBS_STATE]}")
    vectors = read_vectors(root, features.values())
    columns = [names[OBS_STATE].index(name) for name in names[ACTION]]
    joint_names = tuple(name.removesuffix(".pos") for name in names[ACTION])
    return RecordedJoints(root, joint_names, vectors[ACTION], vectors[OBS_STATE][:, columns], read_episode_index(root))


def _read_parquet(path: Path) -> RecordedJoints:
    """A file without metadata: its six columns are the joints that SO-101 and Koch have, in LeRobot's order."""
    columns = [ACTION, OBS_STATE, EPISODE_INDEX]
    try:
        names = pq.read_schema(path).names
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is no parquet file with the columns {columns}: {error}") from error
    missing = sorted(set(columns) - set(names))
    if missing:
        raise ValueError(f"{path} has no column {missing}; it has {names}")
    table = pq.read_table(path, columns=[*columns, *{_FRAME_INDEX}.intersection(names)])
    positions = {name: column for column, name in enumerate(JOINT_NAMES)}
    actions, states = (
        to_vectors(table[key], JointFeature(key, len(JOINT_NAMES), positions), path) for key in (ACTION, OBS_STATE)
    )
    episode_index = integer_column(table, EPISODE_INDEX, path)
    if _FRAME_INDEX in names:
        _check_order(episode_index, integer_column(table, _FRAME_INDEX, path), path)
    return RecordedJoints(path, JOINT_NAMES, actions, states, episode_index)


def _check_order(episode_index: NDArray[np.int64], frame_index: NDArray[np.int64], path: Path) -> None:
    """Raise ValueError unless each frame of an episode follows the one before."""
    wrong = np.flatnonzero((np.diff(episode_index) == 0) & (np.diff(frame_index) != 1)) + 1
    if len(wrong):
        row = wrong[0]
        raise ValueError(
            f"{path}: {_FRAME_INDEX} must rise by 1 within an episode; in row {row}, of episode {episode_index[row]}, "
            f"it goes from {frame_index[row - 1]} to {frame_index[row]}. Sort the rows by {EPISODE_INDEX} and "
            f"{_FRAME_INDEX}; where frames are missing, make two episodes of it"
        )
