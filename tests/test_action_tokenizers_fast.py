"""FAST: ids and actions of the published processor where that one is right, clamping or an error where it is wrong."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fast_cases import CHUNK_SIZE, JOINTS, KINDS, any_coefficients, chunks_of, make_tokenizer, published
from fast_reference import ReferenceFast, smooth_chunks
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lerobot_vla_plugin.action_tokenizers import FastTokenizer
from lerobot_vla_plugin.action_tokenizers.fast_bytes import encodable_codes, nearest_codes

seeds = st.integers(0, 2**32 - 1)

# The published processor


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", ["published", "like FAST+"])
def test_ids_and_actions_are_those_of_the_published_processor(kind: str, dtype: type) -> None:
    chunks = smooth_chunks(400, CHUNK_SIZE, JOINTS).astype(dtype)  # those it was fitted to: nothing is lost
    reference, ours = published(kind), make_tokenizer(kind)
    ids = reference.encode(chunks)
    assert ours.encode(chunks) == ids
    np.testing.assert_array_equal(
        ours.decode(ids, CHUNK_SIZE, JOINTS), reference.decode(ids, CHUNK_SIZE, JOINTS), strict=True
    )


def test_halves_are_rounded_as_published_in_float32_too() -> None:
    """Steady poses halfway between two coefficients: what rounding a cosine transform leaves of them decides."""
    reference, ours = published("like FAST+"), make_tokenizer("like FAST+")
    poses = (np.arange(-60, 60) + 0.5) / (ours.scale * np.sqrt(CHUNK_SIZE))
    chunks = np.tile(poses.astype(np.float32)[:, None, None], (1, CHUNK_SIZE, JOINTS))
    assert ours.encode(chunks) == reference.encode(chunks)
    assert ours.encode(chunks.astype(np.float64)) == reference.encode(chunks.astype(np.float64)) != ours.encode(chunks)


@given(seed=seeds)
def test_a_wide_alphabet_is_read_and_written_as_published(seed: int) -> None:
    """Its vocabulary holds all bytes, so nothing can be lost: both agree on every coefficient from -354 to 1693."""
    reference, ours = published("like FAST+"), make_tokenizer("like FAST+")
    assert (ours.min_token, ours.max_token) == (-354, 2047 - 354)
    chunks = chunks_of(any_coefficients(ours, seed), ours)
    ids = reference.encode(chunks)
    assert ours.encode(chunks) == ids
    np.testing.assert_array_equal(ours.decode(ids, CHUNK_SIZE, JOINTS), reference.decode(ids, CHUNK_SIZE, JOINTS))


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_of_an_id_are_what_the_vocabulary_decodes(kind: str) -> None:
    """Raw characters in the published vocabularies, too, and runs that begin or end inside a character."""
    tokenizer = make_tokenizer(kind)
    rng = np.random.default_rng(0)
    runs = [[index] for index in range(tokenizer.vocab_size)]
    runs += [rng.integers(tokenizer.vocab_size, size=rng.integers(2, 9)).tolist() for _ in range(2000)]
    for run in runs:
        assert b"".join(tokenizer._tokens[run]).decode(errors="replace") == tokenizer.bpe.decode(run)


def test_what_the_published_processor_loses_is_clamped() -> None:
    """Outside the narrow alphabet it drops characters, and every later coefficient with them."""
    chunks = 3 * smooth_chunks(50, CHUNK_SIZE, JOINTS, seed=1)
    reference, ours = published("published"), make_tokenizer("published")
    with pytest.raises(ValueError):
        reference.decode(reference.encode(chunks), CHUNK_SIZE, JOINTS)
    coefficients = ours.coefficients(chunks)
    np.testing.assert_array_equal(ours.decode_coefficients(ours.encode(chunks), CHUNK_SIZE, JOINTS), coefficients)
    assert coefficients.min() == ours.min_token
    assert coefficients.max() == ours.max_token


@given(codes=st.sets(st.integers(0, 60), min_size=1).map(sorted), last_code=st.integers(0, 60))
def test_a_code_that_cannot_be_written_becomes_the_nearest(codes: list[int], last_code: int) -> None:
    for code, chosen in enumerate(nearest_codes(np.array(codes), last_code)):
        assert chosen in codes
        assert abs(chosen - code) == min(abs(other - code) for other in codes)


# Our own vocabularies


@given(seed=seeds, kind=st.sampled_from(KINDS))
def test_decoding_returns_the_coefficients(seed: int, kind: str) -> None:
    tokenizer = make_tokenizer(kind)
    coefficients = tokenizer.coefficients(chunks_of(any_coefficients(tokenizer, seed), tokenizer))
    ids = tokenizer.encode_coefficients(coefficients)
    assert all(sum(tokenizer.coefficient_counts[sequence]) == CHUNK_SIZE * JOINTS for sequence in ids)
    np.testing.assert_array_equal(tokenizer.decode_coefficients(ids, CHUNK_SIZE, JOINTS), coefficients)


@given(seed=seeds)
def test_the_decoded_error_is_within_half_a_rounding_step(seed: int) -> None:
    """The cosine transform keeps lengths, so a chunk is off by at most half a step in every direction."""
    own = make_tokenizer("own")
    chunks = smooth_chunks(5, CHUNK_SIZE, JOINTS, seed)
    errors = own.decode(own.encode(chunks), CHUNK_SIZE, JOINTS) - chunks
    assert (np.sqrt((errors**2).sum(axis=1)) <= 0.5 / own.scale * np.sqrt(CHUNK_SIZE) + 1e-12).all()


def test_every_coefficient_of_the_alphabet_can_be_written() -> None:
    """Those that were never seen, too."""
    own = make_tokenizer("own")
    last_code = own.max_token - own.min_token
    assert encodable_codes(own.bpe.get_vocab(), last_code).tolist() == [*range(last_code + 1)]


def test_alphabet_has_room_around_what_was_seen() -> None:
    own, chunks = make_tokenizer("own"), smooth_chunks(400, CHUNK_SIZE, JOINTS)
    seen = np.abs(own.coefficients(chunks)).max()
    assert own.max_token == -own.min_token == int(np.ceil(1.5 * seen))
    far = own.coefficients(100 * chunks)
    assert far.max() == own.max_token
    assert far.min() == own.min_token


def test_any_fast_decoder_reads_our_files(tmp_path) -> None:
    own, chunks = make_tokenizer("own"), smooth_chunks(50, CHUNK_SIZE, JOINTS, seed=2)
    own.save(tmp_path)
    reference = ReferenceFast.load(tmp_path)
    ids = own.encode(chunks)
    assert reference.encode(chunks) == ids
    np.testing.assert_array_equal(
        reference.decode(ids, CHUNK_SIZE, JOINTS), own.decode(ids, CHUNK_SIZE, JOINTS), strict=True
    )


def test_a_batch_is_its_chunks_one_by_one() -> None:
    own, chunks = make_tokenizer("own"), smooth_chunks(20, CHUNK_SIZE, JOINTS, seed=3)
    ids = own.encode(chunks)
    assert ids == [own.encode(chunk[None])[0] for chunk in chunks]
    together = own.decode(ids, CHUNK_SIZE, JOINTS)
    alone = [own.decode([sequence], CHUNK_SIZE, JOINTS)[0] for sequence in ids]
    np.testing.assert_array_equal(together, np.stack(alone))
    assert own.encode(chunks[:0]) == []
    assert own.decode([], CHUNK_SIZE, JOINTS).shape == (0, CHUNK_SIZE, JOINTS)


def test_same_chunks_give_the_same_vocabulary() -> None:
    again = FastTokenizer.fit(smooth_chunks(400, CHUNK_SIZE, JOINTS), vocab_size=512)
    assert again.bpe.to_str() == make_tokenizer("own").bpe.to_str()


@pytest.mark.slow
def test_same_chunks_give_the_same_vocabulary_in_another_process() -> None:
    """Whatever the seeds of its hash tables and the number of its threads."""
    program = (
        "from fast_reference import smooth_chunks; from lerobot_vla_plugin.action_tokenizers import FastTokenizer; "
        f"print(FastTokenizer.fit(smooth_chunks(400, {CHUNK_SIZE}, {JOINTS}), vocab_size=512).bpe.to_str())"
    )
    environment = os.environ | {"RAYON_NUM_THREADS": "3", "PYTHONPATH": str(Path(__file__).parent)}
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == make_tokenizer("own").bpe.to_str()


# What cannot be fitted or encoded


def with_value(value: float) -> NDArray:
    chunks = smooth_chunks(100, CHUNK_SIZE, JOINTS)
    chunks[7, 3, 2] = value
    return chunks


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_named(value: float) -> None:
    with pytest.raises(ValueError, match=r"chunk 7, step 3, joint 2"):
        make_tokenizer("own").encode(with_value(value))
    with pytest.raises(ValueError, match=r"chunk 7, step 3, joint 2"):
        FastTokenizer.fit(with_value(value))


def test_a_joint_that_never_moves_must_be_declared() -> None:
    chunks = smooth_chunks(50, CHUNK_SIZE, JOINTS)
    chunks[:, :, 2] = 0.25
    with pytest.raises(ValueError, match=r"joints \[2\] of 4 never move"):
        FastTokenizer.fit(chunks)
    tokenizer = FastTokenizer.fit(chunks, constant_joints=[2])
    decoded = tokenizer.decode(tokenizer.encode(chunks), CHUNK_SIZE, JOINTS)
    np.testing.assert_allclose(decoded[..., 2], 0.25, atol=0.05)


@pytest.mark.parametrize(
    ("chunks", "options", "message"),
    [
        (smooth_chunks(15, CHUNK_SIZE, JOINTS), {}, "at least 16 chunks .* got 15"),
        (smooth_chunks(50, CHUNK_SIZE, JOINTS)[0], {}, r"shape \(n, chunk_size, action_dim\), got \(20, 4\)"),
        (smooth_chunks(50, CHUNK_SIZE, JOINTS), {"vocab_size": 60}, "vocab_size above .*got 60"),
        (smooth_chunks(50, CHUNK_SIZE, JOINTS), {"scale": 0}, "positive scale, got 0"),
        (smooth_chunks(50, CHUNK_SIZE, JOINTS), {"scale": float("nan")}, "positive scale, got nan"),
        (smooth_chunks(50, CHUNK_SIZE, JOINTS), {"scale": 1e-300}, "positive scale, got 1e-300"),
        (smooth_chunks(50, CHUNK_SIZE, JOINTS), {"scale": 1e6}, "lower the scale"),
        (1e300 * smooth_chunks(50, CHUNK_SIZE, JOINTS), {}, "lower the scale"),
    ],
)
def test_what_cannot_be_fitted_says_why(chunks: NDArray, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FastTokenizer.fit(chunks, **options)


def test_other_chunks_than_fitted_are_refused() -> None:
    own = make_tokenizer("own")
    with pytest.raises(ValueError, match=r"\(n, 20, 4\), got \(3, 20, 6\)"):
        own.encode(smooth_chunks(3, CHUNK_SIZE, 6))
    ids = own.encode(smooth_chunks(3, CHUNK_SIZE, JOINTS))
    for shape in ((50, JOINTS), (JOINTS, CHUNK_SIZE), (CHUNK_SIZE // 2, 2 * JOINTS)):
        for call in (lambda shape=shape: own.decode(ids, *shape), lambda shape=shape: own.grammar(*shape)):
            with pytest.raises(ValueError, match=f"20 steps and 4 joints, got {shape[0]} and {shape[1]}; fit one"):
                call()


def test_published_files_leave_the_chunk_open() -> None:
    tokenizer = make_tokenizer("published")
    assert tokenizer.grammar(50, 6).total == 300
    ids = tokenizer.encode(smooth_chunks(3, CHUNK_SIZE // 2, 2 * JOINTS))
    assert tokenizer.decode(ids, CHUNK_SIZE // 2, 2 * JOINTS).shape == (3, CHUNK_SIZE // 2, 2 * JOINTS)
    for shape in ((0, JOINTS), (CHUNK_SIZE, 0), (-CHUNK_SIZE, -JOINTS)):
        with pytest.raises(ValueError, match="at least one step and one joint"):
            tokenizer.decode([[]], *shape)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_huge_values_are_clamped(dtype: type) -> None:
    own = make_tokenizer("own")
    for largest in (1e30, float(np.finfo(dtype).max)):
        poses = np.stack([np.full((CHUNK_SIZE, JOINTS), value, dtype) for value in (-largest, largest)])
        coefficients = own.coefficients(poses)
        assert (coefficients[:, 0] == [[own.min_token], [own.max_token]]).all()
        # There and back at every step: all frequencies are as far out, and each has a sign.
        turns = poses * np.array([1, -1], dtype)[np.arange(CHUNK_SIZE) % 2, None]
        assert set(own.coefficients(turns)[:, 1::2].ravel().tolist()) == {own.min_token, own.max_token}


def test_an_alphabet_beyond_unicode_is_refused() -> None:
    with pytest.raises(ValueError, match="values of a coefficient"):
        replace(make_tokenizer("own"), max_token=10**6)


@pytest.mark.parametrize("alphabet", [{"min_token": 1}, {"max_token": -1}])
def test_an_alphabet_without_zero_is_refused(alphabet: dict) -> None:
    """A joint that stands still is mostly zeros."""
    with pytest.raises(ValueError, match="0 among them"):
        replace(make_tokenizer("own"), **alphabet)
