"""Recordings of an arm that tokenizers are fitted to, without a file behind them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from conftest import JOINTS

from lerobot_vla_plugin.tokenizer_joints import RecordedJoints


def recorded_motion(lengths: Sequence[int], gripper_moves: Sequence[int] = ()) -> RecordedJoints:
    """Sine waves over about -30..30, episode by episode, with states that lag behind.

    Args:
        lengths: Frames of each episode.
        gripper_moves: Episodes in which the last joint leaves 12.5.
    """
    generator = np.random.default_rng(0)
    episode_index = np.repeat(np.arange(len(lengths)), lengths)
    phases = generator.uniform(0, 2 * np.pi, (len(lengths), len(JOINTS)))[episode_index]
    angles = phases + 0.1 * np.arange(len(episode_index))[:, None]
    actions, states = 30 * np.sin(angles), 30 * np.sin(angles - 0.2)
    still = ~np.isin(episode_index, gripper_moves)
    actions[still, -1] = states[still, -1] = 12.5
    return RecordedJoints(Path("motion"), tuple(JOINTS), actions, states, episode_index)
