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
    starts, ends = np.cumsum([0, *lengths[:-1]]), np.cumsum(lengths)
    if max(lengths) < chunk_size:
        with pytest.raises(ValueError, match=f"no episode is as long.*the longest has {max(lengths)} frames"):
            action_chunks(frames, episode_index, chunk_size, stride)
        return
    cut, first_frames = action_chunks(frames, episode_index, chunk_size, stride)
    expected = []
    for start, end in zip(starts, ends, strict=True):
        last = end - chunk_size if end - start >= chunk_size else end - 1
        expected += [frame for frame in range(start, last + 1) if (frame - start) % stride == 0 or frame == last]
    assert first_frames.tolist() == expected
    last_frames = ends[np.searchsorted(ends, first_frames, side="right")] - 1
    held = np.minimum(first_frames[:, None] + np.arange(chunk_size), last_frames[:, None])
    assert (cut[..., 0] == held).all()
    if stride <= chunk_size:
        assert set(cut.ravel()) == set(frames.ravel())


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
