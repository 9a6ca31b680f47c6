"""Chunks are cut out of episodes whole."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lerobot_vla_plugin.action_tokenizers.chunk_windows import action_chunks


@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=6),
    chunk_size=st.integers(1, 6),
    stride=st.integers(1, 4),
)
def test_chunks_are_whole_and_never_cross_episodes(lengths, chunk_size, stride):
    episode_index = np.repeat(np.arange(len(lengths)) + 5, lengths)
    frames = np.arange(sum(lengths), dtype=float)[:, None]
    expected = [
        start
        for episode in range(len(lengths))
        for start in range(sum(lengths[:episode]), sum(lengths[: episode + 1]) - chunk_size + 1)
        if (start - sum(lengths[:episode])) % stride == 0
    ]
    if not expected:
        with pytest.raises(ValueError, match=f"no episode is as long.*the longest has {max(lengths)} frames"):
            action_chunks(frames, episode_index, chunk_size, stride)
        return
    cut, first_frames = action_chunks(frames, episode_index, chunk_size, stride)
    assert first_frames.tolist() == expected
    assert (cut[..., 0] == first_frames[:, None] + np.arange(chunk_size)).all()


@pytest.mark.parametrize(
    ("episode_index", "chunk_size", "stride", "message"),
    [
        ([0, 0, 1, 0], 1, 1, "must follow each other"),
        ([0, 0, 0], 1, 1, "an episode for each of 4"),
        ([0, 0, 0, 0], 0, 1, "at least 1"),
        ([0, 0, 0, 0], 1, 0, "at least 1"),
    ],
)
def test_episodes_in_pieces_are_refused(episode_index, chunk_size, stride, message):
    with pytest.raises(ValueError, match=message):
        action_chunks(np.zeros((4, 2)), np.array(episode_index), chunk_size, stride)
