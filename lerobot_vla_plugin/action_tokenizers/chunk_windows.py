"""Action chunks of recorded episodes."""

import numpy as np
from numpy.typing import NDArray


def action_chunks(
    actions: NDArray, episode_index: NDArray, chunk_size: int, stride: int = 1
) -> tuple[NDArray, NDArray[np.int64]]:
    """Cut recorded actions into overlapping chunks, none of which reaches into the next episode.

    The last chunk of an episode is always one of them, so that with a stride up to `chunk_size` every action is in
    some chunk. An episode shorter than a chunk gives chunks, too, which hold its last action, as training encodes them.

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
    in_episodes = [_first_frames(*episode, chunk_size, stride) for episode in zip(ends - lengths, ends, strict=True)]
    first_frames = np.concatenate(in_episodes)
    last_frames = np.repeat(ends - 1, [len(frames) for frames in in_episodes])
    return actions[np.minimum(first_frames[:, None] + np.arange(chunk_size), last_frames[:, None])], first_frames


def _first_frames(start: int, end: int, chunk_size: int, stride: int) -> NDArray[np.int64]:
    """Where the chunks of the episode start..end - 1 begin."""
    last = end - chunk_size if end - start >= chunk_size else end - 1
    return np.append(np.arange(start, last, stride), last)


def _episode_lengths(episode_index: NDArray) -> NDArray[np.int64]:
    """Frames of each episode, in the order of recording."""
    episode_index = np.asarray(episode_index)
    starts = np.flatnonzero(np.diff(episode_index, prepend=np.nan))
    if len(starts) != len(np.unique(episode_index)):
        raise ValueError("the frames of an episode must follow each other; sort them by episode and frame")
    return np.diff(starts, append=len(episode_index))
