"""Chunks as their distance from the present state, step by step scaled to mean 0 and deviation 1.

An arm that is told where to go from where it stands moves as recorded even where its picture is read a little wrong:
the error is one of the motion, not of the place. LeRobot's own step for this is refused by its synchronous rollout.
"""

from typing import TYPE_CHECKING, Self

import torch
from lerobot.utils.constants import ACTION, OBS_STATE
from torch import Tensor, nn

from .action_tokenizers.chunk_scaling import may_be_relative
from .arms.dataset_contract import feature_joint_names
from .tokenizer_joints import RecordedJoints, read_joints

if TYPE_CHECKING:
    from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata

# Of what hardly moves, in robot units: a few encoder ticks. Dividing by less would make much of nothing.
_SMALLEST_STD = 0.5


class RelativeActions(nn.Module):
    """Scales of a chunk, which travel among the weights. Nothing here learns.

    Shapes: b batch, c steps of a chunk, j joints.

    Args:
        chunk_size: Steps of a chunk.
        num_joints: Joints of a step.
    """

    is_relative: Tensor
    mean: Tensor
    std: Tensor
    state_mean: Tensor
    state_std: Tensor

    def __init__(self, chunk_size: int, num_joints: int):
        super().__init__()
        steps, joints = (chunk_size, num_joints), (num_joints,)
        for name, shape in (("is_relative", joints), ("mean", steps), ("state_mean", joints)):
            self.register_buffer(name, torch.zeros(shape))
        for name, shape in (("std", steps), ("state_std", joints)):
            self.register_buffer(name, torch.ones(shape))

    @classmethod
    def fit(cls, recorded: RecordedJoints, chunk_size: int) -> Self:
        """Measure the scales of a recording.

        Args:
            recorded: Its joints.
            chunk_size: Steps of a chunk.

        Raises:
            ValueError: No episode is as long as a chunk.
        """
        chunks, states = (torch.as_tensor(values) for values in recorded.chunks(chunk_size))
        scales = cls(chunk_size, len(recorded.joint_names))
        scales.is_relative[:] = torch.tensor([may_be_relative(name) for name in recorded.joint_names])
        distances = chunks - states[:, None] * scales.is_relative
        for name, values in (("", distances), ("state_", torch.as_tensor(recorded.states))):
            getattr(scales, f"{name}mean")[:] = values.mean(dim=0)
            getattr(scales, f"{name}std")[:] = values.std(dim=0).clamp_min(_SMALLEST_STD)
        return scales

    def scale_states(self, states: Tensor) -> Tensor:
        """Joint positions in robot units, (b, j) -> mean 0, deviation 1."""
        return (states - self.state_mean) / self.state_std

    def normalize(self, actions: Tensor, states: Tensor) -> Tensor:
        """Chunks and the states at their first step, both in robot units, (b, c, j) and (b, j) -> scaled distances."""
        return (actions - self._origin(states) - self.mean) / self.std

    def unnormalize(self, distances: Tensor, states: Tensor) -> Tensor:
        """The inverse of `normalize`."""
        return distances * self.std + self.mean + self._origin(states)

    def _origin(self, states: Tensor) -> Tensor:
        return (states * self.is_relative)[:, None]


def fit_relative_actions(dataset_meta: "LeRobotDatasetMetadata | None", chunk_size: int) -> RelativeActions:
    """Scales of the data set that a fresh policy is to be trained on, all episodes of it.

    Args:
        dataset_meta: The data set.
        chunk_size: Steps of a chunk.

    Raises:
        ValueError: There is none, it is not on this disk, or state and action are not of the same joints.
    """
    if dataset_meta is None:
        raise ValueError("relative_actions=true needs a data set to measure the motion of, and there is none")
    states, actions = (feature_joint_names(dataset_meta.features.get(key, {})) for key in (OBS_STATE, ACTION))
    if states != actions or not actions:
        raise ValueError(
            f"relative_actions=true needs {OBS_STATE} and {ACTION} of the same joints; got {states} and {actions}"
        )
    try:
        return RelativeActions.fit(read_joints(dataset_meta.repo_id, dataset_meta.root), chunk_size)
    except FileNotFoundError as error:
        raise ValueError(f"relative_actions=true needs the data set on this disk: {error}") from error
