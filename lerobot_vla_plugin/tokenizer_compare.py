"""What action tokenizers cost and lose on recorded motion: rate against distortion, on episodes they have not seen."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .action_tokenizers import chunk_scaling
from .action_tokenizers.chunk_codec import ChunkCodec
from .tokenizer_joints import RecordedJoints
from .tokenizer_rows import Row


@dataclass(frozen=True)
class Fold:
    """Episodes to fit to, and others to test on."""

    fit_episodes: list[int]
    test_episodes: list[int]


@dataclass(frozen=True)
class FoldResult:
    """One tokenizer on the test episodes of one fold.

    Attributes:
        tokens_mean: Tokens of a chunk, mean.
        tokens_p99: The same, 99th percentile.
        vocab_size: Ids that it has.
        error_mean: Absolute error of each joint over chunks and steps, (j,), in robot units.
        error_p99: The same, 99th percentile.
        error_max: The same, largest.
        overall_mean: Mean absolute error over the joints that move in the recording, in robot units.
        overall_p99: 99th percentile over these joints.
        seconds: How long fitting, encoding and decoding took, in [s].
    """

    tokens_mean: float
    tokens_p99: float
    vocab_size: int
    error_mean: NDArray[np.float64]
    error_p99: NDArray[np.float64]
    error_max: NDArray[np.float64]
    overall_mean: float
    overall_p99: float
    seconds: float


@dataclass(frozen=True)
class RowResult:
    """One tokenizer on all folds."""

    row: Row
    folds: tuple[FoldResult, ...]

    @property
    def tokens(self) -> NDArray[np.float64]:
        """Mean tokens of a chunk, (folds,)."""
        return np.array([fold.tokens_mean for fold in self.folds])

    @property
    def errors(self) -> NDArray[np.float64]:
        """Mean absolute error over the joints that move, (folds,), in robot units."""
        return np.array([fold.overall_mean for fold in self.folds])

    def mean(self, name: str) -> NDArray[np.float64]:
        """An attribute of `FoldResult`, mean over the folds."""
        return np.mean([getattr(fold, name) for fold in self.folds], axis=0)

    @property
    def error_max(self) -> NDArray[np.float64]:
        """Largest error of each joint in any fold, (j,), in robot units."""
        return np.max([fold.error_max for fold in self.folds], axis=0)


def make_folds(episode_lengths: Mapping[int, int], count: int, chunk_size: int) -> list[Fold]:
    """Leave out each episode once; where there are more than `count`, several at a time.

    Args:
        episode_lengths: Episode of the data set -> its frames; those shorter than a chunk come into no fold.
        count: Most folds to make.
        chunk_size: Steps of a chunk.

    Raises:
        ValueError: There are fewer than two such episodes, or fewer than two folds.
    """
    episodes = [episode for episode, frames in episode_lengths.items() if frames >= chunk_size]
    if len(episodes) < 2:
        raise ValueError(
            f"expected at least 2 episodes of {chunk_size} frames, the steps of a chunk, to fit on some and test on "
            f"others; of {len(episode_lengths)} so long are {len(episodes)}, the longest has "
            f"{max(episode_lengths.values())} frames: choose a smaller --chunk-size, or record another. "
            "`lerobot-vla tokenizer fit` needs one only"
        )
    if count < 2:
        raise ValueError(f"expected at least 2 folds, got {count}")
    tested = [list(episodes[start::count]) for start in range(min(count, len(episodes)))]
    return [Fold([e for e in episodes if e not in chosen], chosen) for chosen in tested]


def compare(
    joints: RecordedJoints, rows: Sequence[Row], folds: Sequence[Fold], chunk_size: int, stride: int
) -> Iterator[tuple[Row, FoldResult]]:
    """Fit every tokenizer to every fold and test it, fold by fold.

    Args:
        joints: The recording.
        rows: Tokenizers.
        folds: Episodes to fit to and to test on.
        chunk_size: Steps of a chunk.
        stride: Frames from one chunk that is tested on to the next.

    Yields:
        Each tokenizer and its result on a fold, as soon as it is there.

    Raises:
        ValueError: A tokenizer cannot be fitted; the message names it.
    """
    with _warned_once():
        for fold in folds:
            fitted = joints.of_episodes(fold.fit_episodes).chunks(chunk_size)
            tested = joints.of_episodes(fold.test_episodes).chunks(chunk_size, stride)
            for row in rows:
                try:
                    yield row, _fold_result(row, joints, fitted, tested)
                except ValueError as error:
                    raise ValueError(f"{row.label}: {error}") from error


@contextmanager
def _warned_once() -> Iterator[None]:
    """Else a joint that never moves would be told of by every tokenizer in every fold."""
    told: set[str] = set()

    def first_time(record: logging.LogRecord) -> bool:
        message = record.getMessage()
        is_new = message not in told
        told.add(message)
        return is_new

    logger = logging.getLogger(chunk_scaling.__name__)
    logger.addFilter(first_time)
    try:
        yield
    finally:
        logger.removeFilter(first_time)


def _with_span(codec: ChunkCodec, low: NDArray, high: NDArray) -> ChunkCodec:
    """Take the span of the whole recording, as of a codec that is trained with.

    An unseen episode may go further than the others, and the clamp would be taken for an error of the tokenizer. But a
    joint that never moved in the others stays in its place: that is its error.
    """
    scaling = codec.scaling
    still = np.isin(np.arange(codec.action_dim), scaling.constant_joints)
    return codec.with_span(np.where(still, scaling.span_low, low), np.where(still, scaling.span_high, high))


def _fold_result(
    row: Row, joints: RecordedJoints, fitted: tuple[NDArray, NDArray], tested: tuple[NDArray, NDArray]
) -> FoldResult:
    started_s = time.perf_counter()
    low, high = joints.span
    codec = _with_span(ChunkCodec.fit(*fitted, joints.joint_names, row.kind, **row.options), low, high)
    actions, states = tested
    ids = codec.encode(actions, states)
    errors = np.abs(codec.decode(ids, states) - actions)
    seconds = time.perf_counter() - started_s
    lengths = [len(sequence) for sequence in ids]
    overall = errors[..., low < high]
    return FoldResult(
        tokens_mean=float(np.mean(lengths)),
        tokens_p99=float(np.quantile(lengths, 0.99)),
        vocab_size=codec.vocab_size,
        error_mean=errors.mean(axis=(0, 1)),
        error_p99=np.quantile(errors, 0.99, axis=(0, 1)),
        error_max=errors.max(axis=(0, 1)),
        overall_mean=float(overall.mean()),
        overall_p99=float(np.quantile(overall, 0.99)),
        seconds=seconds,
    )
