"""Action chunks of recorded episodes."""

import numpy as np
from numpy.typing import NDArray


def action_chunks(
    actions: NDArray, episode_index: NDArray, chunk_size: int, stride: int = 1
) -> tuple[NDArray, NDArray[np.int64]]:
    """Cut recorded actions into overlapping chunks, none of which reaches into the next episode.

    Args:
        actions: Recorded actions, (frames, j), in the order of recording.
        episode_index: Episode of each frame, (frames,).
        chunk_size: Steps of a chunk.
        stride: Frames from one chunk of an episode to the next.

    Returns:
        Chunks, (n, chunk_size, j), and the frame at which each begins, (n,).

    Raises:
        ValueError: No episode is as long as a chunk, or the frames of an episode do not follow each other.
    """
    if chunk_size < 1 or stride < 1:
        raise ValueError(f"chunk_size and stride must be at least 1, got {chunk_size} and {stride}")
    if len(actions) != len(episode_index):
        raise ValueError(f"expected an episode for each of {len(actions)} actions, got {len(episode_index)}")
    lengths = _episode_lengths(episode_index)
    if max(lengths, default=0) < chunk_size:
        raise ValueError(
            f"no episode is as long as a chunk of {chunk_size} steps, the longest has {max(lengths, default=0)} "
            "frames; choose a smaller chunk_size"
        )
    ends = np.cumsum(lengths)
    in_episodes = zip(ends - lengths, ends, strict=True)
    first_frames = np.concatenate([np.arange(start, end - chunk_size + 1, stride) for start, end in in_episodes])
    windows = np.lib.stride_tricks.sliding_window_view(actions, chunk_size, axis=0).swapaxes(1, 2)
    return windows[first_frames], first_frames


def _episode_lengths(episode_index: NDArray) -> NDArray[np.int64]:
    """Frames of each episode, in the order of recording."""
    episode_index = np.asarray(episode_index)
    starts = np.flatnonzero(np.diff(episode_index, prepend=np.nan))
    if len(starts) != len(np.unique(episode_index)):
        raise ValueError("the frames of an episode must follow each other; sort them by episode and frame")
    return np.diff(starts, append=len(episode_index))
