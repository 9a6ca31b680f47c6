"""What every tokenizer demands of the chunks it is given."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# Chunks are normalised to a spread of 2; what moves less than this only moves by rounding.
_LEAST_MOTION = 1e-6


def check_chunks(chunks: NDArray, chunk_size: int | None = None, action_dim: int | None = None) -> NDArray[np.float64]:
    """Chunks (n, c, j) as float64.

    Args:
        chunks: Normalised action chunks.
        chunk_size: Steps they must have; None for any.
        action_dim: Joints they must have; None for any.

    Raises:
        ValueError: Another shape, or a value that is not finite.
    """
    chunks = np.asarray(chunks, dtype=np.float64)
    expected = ("n", chunk_size or "chunk_size", action_dim or "action_dim")
    if chunks.ndim != 3 or any(
        e != g for e, g in zip(expected[1:], chunks.shape[1:], strict=True) if isinstance(e, int)
    ):
        raise ValueError(f"expected chunks of shape ({', '.join(map(str, expected))}), got {chunks.shape}")
    if 0 in chunks.shape[1:]:
        raise ValueError(f"expected at least one step and one joint a chunk, got shape {chunks.shape}")
    bad = np.argwhere(~np.isfinite(chunks))
    if len(bad):
        chunk, step, joint = bad[0]
        raise ValueError(
            f"{len(bad)} action values are not finite, the first is {chunks[chunk, step, joint]} in chunk {chunk}, "
            f"step {step}, joint {joint}; remove those frames"
        )
    return chunks


def check_fitted_for(chunk_size: int, action_dim: int, fitted_size: int | None, fitted_dim: int | None) -> None:
    """Refuse another chunk than a tokenizer was fitted to: as many values in another order would decode, to nonsense.

    Args:
        chunk_size: Steps that are asked for.
        action_dim: Joints that are asked for.
        fitted_size: Steps that the tokenizer was fitted to; None where its files do not say.
        fitted_dim: Joints that it was fitted to; None likewise.

    Raises:
        ValueError: Another chunk, or one without steps or joints.
    """
    if chunk_size < 1 or action_dim < 1:
        raise ValueError(f"expected at least one step and one joint a chunk, got {chunk_size} and {action_dim}")
    fitted = (fitted_size or chunk_size, fitted_dim or action_dim)
    if (chunk_size, action_dim) != fitted:
        raise ValueError(
            f"this tokenizer was fitted to chunks of {fitted[0]} steps and {fitted[1]} joints, got {chunk_size} and "
            f"{action_dim}; fit one to such chunks"
        )


def check_fit_chunks(chunks: NDArray, constant_joints: Sequence[int], fewest: int) -> NDArray[np.float64]:
    """Chunks (n, c, j) to fit a tokenizer to, as float64.

    Args:
        chunks: Normalised action chunks.
        constant_joints: Joints that are known never to move.
        fewest: Chunks that there must be.

    Raises:
        ValueError: Another shape, too few chunks, a value that is not finite, or a joint that never moves.
    """
    chunks = check_chunks(chunks)
    if len(chunks) < fewest:
        raise ValueError(f"expected at least {fewest} chunks to fit a tokenizer to, got {len(chunks)}: record more")
    motion = np.ptp(chunks, axis=(0, 1))
    still = sorted(set(np.flatnonzero(motion < _LEAST_MOTION).tolist()) - set(constant_joints))
    if still:
        raise ValueError(
            f"joints {still} of {chunks.shape[2]} never move in {len(chunks)} chunks: is a cable or a column missing? "
            f"If they are meant to stand still, say constant_joints={still}"
        )
    return chunks
