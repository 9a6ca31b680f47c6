"""Rate-distortion optimised FAST tokens: the best there are, and any FAST decoder reads them."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from fast_reference import ReferenceFast, smooth_chunks
from grammar_walk import assert_obeys
from hypothesis import given, settings
from hypothesis import strategies as st
from reaching_motion import reaching_chunks
from scipy.fft import dct, idct

from lerobot_vla_plugin.action_tokenizers import FastTokenizer
from lerobot_vla_plugin.action_tokenizers.chunk_codec import ChunkCodec
from lerobot_vla_plugin.action_tokenizers.fast_rate_distortion import MAX_ERROR, PRICE, TokenChooser

STEPS, JOINTS, SCALE = 20, 3, 20.0
JOINT_NAMES = ["shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper"]
# Zero, one and two coefficients at once; a 2 takes two ids.
SPELLINGS = [((0,), [0]), ((1,), [1]), ((-1,), [2]), ((2,), [3, 4]), ((0, 0), [5]), ((1, 0), [6]), ((0, 1, 0), [7])]


@pytest.fixture(scope="module")
def tokenizer() -> FastTokenizer:
    return FastTokenizer.fit(smooth_chunks(400, STEPS, JOINTS), scale=SCALE, vocab_size=512, rate_distortion=True)


@pytest.fixture(scope="module")
def chunks() -> np.ndarray:
    return smooth_chunks(70, STEPS, JOINTS, seed=1)


def in_steps(chunks: np.ndarray) -> np.ndarray:
    return np.asarray(dct(chunks, axis=1, norm="ortho")) * SCALE


def objective(targets: np.ndarray, coefficients: np.ndarray, ids: list[int]) -> float:
    return float(((targets - coefficients) ** 2).sum() + PRICE * len(ids))


@cache
def every_way(length: int) -> list[tuple[tuple[int, ...], list[int]]]:
    """All that SPELLINGS can write with so many coefficients."""
    if length == 0:
        return [((), [])]
    steps = [(run, ids, every_way(length - len(run))) for run, ids in SPELLINGS if len(run) <= length]
    return [(before + run, written + ids) for run, ids, ways in steps for before, written in ways]


@given(st.lists(st.integers(-40, 40), min_size=6, max_size=6))
@settings(max_examples=60, deadline=None)
def test_the_path_is_the_best_of_all(sixteenths):
    targets = np.array(sixteenths).reshape(1, 3, 2) / 16
    (found,) = TokenChooser(SPELLINGS).cheapest(targets)
    ways = every_way(6)
    errors = ((np.array([coefficients for coefficients, _ in ways]) - targets.ravel()) ** 2).sum(axis=1)
    best = (errors + PRICE * np.array([len(ids) for _, ids in ways])).min()
    assert objective(targets.ravel(), np.array(found.coefficients), found.ids) == best
    assert (tuple(found.coefficients), found.ids) in ways


def test_a_row_may_have_one_value_only():
    assert TokenChooser([((0,), [3])]).choose(np.ones((1, 2, 2)) / 4) == [[3, 3, 3, 3]]


def test_it_is_never_dearer_than_plain_rounding(tokenizer, chunks):
    rounded = tokenizer.coefficients(chunks)
    plain = tokenizer.encode_coefficients(rounded)
    targets = in_steps(chunks)
    cheapest = tokenizer._chooser.cheapest(targets)
    pairs = [
        (objective(target.ravel(), np.array(found.coefficients), found.ids), objective(target, values, ids))
        for target, values, ids, found in zip(targets, rounded, plain, cheapest, strict=True)
    ]
    # The targets were moved by up to a 32nd of a step.
    assert all(ours <= theirs + 0.1 for ours, theirs in pairs)
    assert np.mean([ours < theirs for ours, theirs in pairs]) > 0.9


def test_finer_steps_with_fewer_tokens_and_smaller_errors():
    fit, test = reaching_chunks(600), reaching_chunks(60, seed=1)
    results = []
    for scale, rate_distortion in ((10, False), (16, True)):
        options = {"relative": True, "equal_ranges": True, "rate_distortion": rate_distortion, "scale": scale}
        codec = ChunkCodec.fit(*fit, JOINT_NAMES, **options).with_span(-np.full(6, 360), np.full(6, 360))
        ids = codec.encode(*test)
        errors = np.abs(codec.decode(ids, test[1]) - test[0])
        results.append((np.mean([len(sequence) for sequence in ids]), errors.mean(), errors.max()))
    (plain_tokens, plain_mean, plain_largest), (tokens, mean, largest) = results
    assert tokens < 0.95 * plain_tokens
    assert mean < 0.95 * plain_mean
    assert largest < 0.8 * plain_largest


def test_no_action_errs_by_more_than_a_rounding_step(tokenizer, chunks):
    errors = np.abs(tokenizer.decode(tokenizer.encode(chunks), STEPS, JOINTS) - chunks)
    assert np.mean(errors.max(axis=(1, 2)) * SCALE <= MAX_ERROR) > 0.9
    unbound = [chunk.coefficients for chunk in tokenizer._chooser.cheapest(in_steps(chunks))]
    decoded = idct(np.array(unbound).reshape(chunks.shape) / SCALE, axis=1, norm="ortho")
    assert (errors.max(axis=(1, 2)) <= np.abs(decoded - chunks).max(axis=(1, 2)) + 1e-9).all()


def test_a_jump_is_kept_though_each_of_its_coefficients_rounds_to_zero(tokenizer):
    jump = np.zeros((1, STEPS, JOINTS))
    jump[0, 0, 1] = 1.5 / SCALE
    assert not tokenizer.coefficients(jump).any()
    error = np.abs(tokenizer.decode(tokenizer.encode(jump), STEPS, JOINTS) - jump).max()
    assert error * SCALE <= MAX_ERROR


def test_the_published_decoder_reads_the_tokens(tokenizer, chunks, tmp_path):
    tokenizer.save(tmp_path)
    ids = tokenizer.encode(chunks)
    theirs = ReferenceFast.load(tmp_path).decode(ids, STEPS, JOINTS)
    np.testing.assert_array_equal(theirs, tokenizer.decode(ids, STEPS, JOINTS))


def test_every_token_is_one_that_the_grammar_allows(tokenizer, chunks):
    grammar = tokenizer.grammar(STEPS, JOINTS)
    for ids in tokenizer.encode(chunks[:10]):
        assert_obeys(grammar, ids)


def test_a_chunk_has_the_same_ids_whatever_it_is_encoded_with(tokenizer, chunks):
    together = tokenizer.encode(chunks)
    assert together == [tokenizer.encode(chunk[None])[0] for chunk in chunks]
    assert together[::-1] == tokenizer.encode(chunks[::-1])
    assert tokenizer.encode(chunks[:0]) == []


def test_coefficients_beyond_the_alphabet_become_the_nearest(tokenizer):
    poses = np.stack(
        [np.full((STEPS, JOINTS), sign * value) for value in (1e4, 1e38, 1e300, 1.7e308) for sign in (1, -1)]
    )
    decoded = tokenizer.decode_coefficients(tokenizer.encode(poses), STEPS, JOINTS)
    ends = np.tile([tokenizer.max_token, tokenizer.min_token], 4)
    assert (decoded[:, 0] == ends[:, None]).all()
    assert (np.abs(decoded[:, 1:]) <= 1).all()


@pytest.mark.parametrize("largest", [1e38, 1e300, 1.7e308])
def test_a_huge_motion_becomes_the_nearest_too(tokenizer, largest):
    far = np.sign(smooth_chunks(1, STEPS, JOINTS)) * largest
    decoded = tokenizer.decode_coefficients(tokenizer.encode(far), STEPS, JOINTS)
    np.testing.assert_array_equal(decoded, tokenizer.coefficients(far))


@pytest.mark.parametrize("rate_distortion", [True, False])
def test_the_files_say_how_it_encodes(rate_distortion, chunks, tmp_path):
    fitted = FastTokenizer.fit(smooth_chunks(100, STEPS, JOINTS), vocab_size=300, rate_distortion=rate_distortion)
    fitted.save(tmp_path)
    loaded = FastTokenizer.load(tmp_path)
    assert loaded.rate_distortion == rate_distortion
    assert loaded.encode(chunks) == fitted.encode(chunks)


def test_a_value_that_is_not_finite_is_refused(tokenizer, chunks):
    with pytest.raises(ValueError, match="not finite"):
        tokenizer.encode(np.where(np.arange(STEPS)[:, None] == 3, np.nan, chunks))


def test_a_published_vocabulary_saves_tokens_too(chunks, tmp_path):
    published = ReferenceFast.fit(smooth_chunks(400, STEPS, JOINTS), scale=SCALE, vocab_size=512)
    plain = FastTokenizer.from_published(published.save(tmp_path))
    ids = replace(plain, rate_distortion=True).encode(chunks)
    assert sum(map(len, ids)) < 0.9 * sum(map(len, plain.encode(chunks)))
    np.testing.assert_array_equal(published.decode(ids, STEPS, JOINTS), plain.decode(ids, STEPS, JOINTS))
