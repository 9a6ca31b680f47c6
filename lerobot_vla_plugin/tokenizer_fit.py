"""Fitting an action tokenizer to a recording, into a folder that training reads."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .action_tokenizers.chunk_codec import ChunkCodec
from .new_folder import new_folder
from .tokenizer_joints import RecordedJoints

# What `ChunkCodec.fit` is told where nobody says otherwise. For FAST the best of `lerobot-vla tokenizer compare`: a
# quarter fewer tokens than with the published settings (scale 10, 1,024 ids, nothing else) at the same mean error, and
# about half the largest one, on a real arm and on the twin. `relative` alone made plain FAST longer. Of bins it leaves
# 0.18 instead of 0.45 of mean error on that real arm, because an unseen episode leaves the outermost bins less; VQ does
# not care (0.37).
FIT_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "fast": {"relative": True, "equal_ranges": True, "rate_distortion": True, "scale": 20.0, "vocab_size": 2048},
    "bins": {"relative": True, "equal_ranges": False, "bins": 256, "quantiles": False},
    "vq": {"relative": False, "equal_ranges": False, "codes": 512, "levels": 4, "steps": 500},
}


@dataclass(frozen=True)
class FitSummary:
    """How a codec does on the chunks that it was fitted to.

    Attributes:
        chunks: How many these were.
        vocab_size: Ids that it has.
        tokens_mean: Tokens of a chunk.
        tokens_max: The most of any.
        error_mean: Absolute error, in robot units.
        error_max: The largest.
    """

    chunks: int
    vocab_size: int
    tokens_mean: float
    tokens_max: int
    error_mean: float
    error_max: float


def fit_codec(
    joints: RecordedJoints, output: Path, kind: str, chunk_size: int, options: Mapping[str, Any]
) -> FitSummary:
    """Fit a codec to a recording and write it.

    Args:
        joints: The recording.
        output: Folder to write.
        kind: Kind of tokenizer.
        chunk_size: Steps of a chunk.
        options: Arguments of `ChunkCodec.fit` that shall differ from `FIT_DEFAULTS`.

    Raises:
        FileExistsError: `output` exists.
        ValueError: The recording cannot be fitted.
    """
    with new_folder(output) as draft:
        actions, states = joints.chunks(chunk_size)
        options = {**FIT_DEFAULTS[kind], **options}
        codec = ChunkCodec.fit(actions, states, joints.joint_names, kind, show_progress=True, **options)
        codec.with_span(*joints.span).save(draft)
        # Read back, so that what is told is true of what was written.
        return summarize_fit(ChunkCodec.load(draft), actions, states)


def summarize_fit(codec: ChunkCodec, actions: NDArray, states: NDArray) -> FitSummary:
    """What a codec costs and loses on chunks (n, c, j) and their states (n, j)."""
    ids = codec.encode(actions, states)
    errors = np.abs(codec.decode(ids, states) - actions)
    lengths = [len(sequence) for sequence in ids]
    return FitSummary(
        chunks=len(actions),
        vocab_size=codec.vocab_size,
        tokens_mean=float(np.mean(lengths)),
        tokens_max=max(lengths),
        error_mean=float(errors.mean()),
        error_max=float(errors.max()),
    )
