"""FAST tokenizers and chunks for tests: two as they are published, one of our own."""

import tempfile
from functools import cache
from pathlib import Path

import numpy as np
from fast_reference import ReferenceFast, smooth_chunks
from numpy.typing import NDArray

from lerobot_vla_plugin.action_tokenizers import FastTokenizer

CHUNK_SIZE, JOINTS = 20, 4
KINDS = ("published", "like FAST+", "own")


@cache
def published(kind: str) -> ReferenceFast:
    """Fitted as the published ones are: a narrow alphabet, one byte a character, or one as wide as FAST+'s, two."""
    chunks = smooth_chunks(400, CHUNK_SIZE, JOINTS)
    if kind == "published":
        return ReferenceFast.fit(chunks, vocab_size=512)
    # Steady poses so far out that the lowest frequencies are -354 and 346.
    poses = np.array([-35.4, 34.6])[:, None, None] / np.sqrt(CHUNK_SIZE) * np.ones((2, CHUNK_SIZE, JOINTS))
    return ReferenceFast.fit(np.concatenate([chunks, poses]), vocab_size=2048)


@cache
def make_tokenizer(kind: str) -> FastTokenizer:
    """One of `KINDS`."""
    if kind == "own":
        return FastTokenizer.fit(smooth_chunks(400, CHUNK_SIZE, JOINTS), vocab_size=512)
    with tempfile.TemporaryDirectory() as folder:
        return FastTokenizer.from_published(published(kind).save(Path(folder)))


def chunks_of(coefficients: NDArray, tokenizer: FastTokenizer) -> NDArray:
    """Chunks that have these rounded coefficients, (n, c, j)."""
    spread = np.random.default_rng(0).uniform(-0.4, 0.4, coefficients.shape)
    basis = np.sqrt(2 / CHUNK_SIZE) * np.cos(
        np.pi / CHUNK_SIZE * (np.arange(CHUNK_SIZE)[:, None] + 0.5) * np.arange(CHUNK_SIZE)
    )
    basis[:, 0] /= np.sqrt(2)
    return np.einsum("tk,nkj->ntj", basis, (coefficients + spread) / tokenizer.scale)


def any_coefficients(tokenizer: FastTokenizer, seed: int, count: int = 4) -> NDArray[np.int64]:
    """Mostly small ones, some from the whole alphabet."""
    rng = np.random.default_rng(seed)
    shape = (count, CHUNK_SIZE, JOINTS)
    small = np.rint(rng.laplace(0, 3, shape)).astype(np.int64)
    anywhere = rng.integers(tokenizer.min_token, tokenizer.max_token + 1, shape)
    mixed = np.where(rng.random(shape) < rng.choice([0.02, 0.5]), anywhere, small)
    return np.clip(mixed, tokenizer.min_token, tokenizer.max_token)
