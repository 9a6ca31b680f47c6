"""Bins: OpenVLA's ids and values, equal mass for quantiles, and nothing malformed decoded."""

import json

import numpy as np
import pytest
from fast_reference import smooth_chunks
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from lerobot_vla_plugin.action_tokenizers import BinTokenizer, MalformedTokensError, load_action_tokenizer
from lerobot_vla_plugin.action_tokenizers.bins import openvla_ids

CHUNKS = smooth_chunks(40, 10, 3)
UNIFORM = BinTokenizer.fit(CHUNKS)
QUANTILES = BinTokenizer.fit(CHUNKS, bins=16, quantiles=True)
LLAMA_WORDS = 32_000
SHAPES = array_shapes(min_dims=3, max_dims=3, max_side=6)


class ReferenceOpenVLA:
    """What OpenVLA does to an action, one line a step, after its paper and its released model."""

    edges = np.linspace(-1, 1, 256)
    centers = (edges[:-1] + edges[1:]) / 2

    def encode(self, actions):
        return LLAMA_WORDS - np.digitize(np.clip(actions, -1.0, 1.0), self.edges)

    def decode(self, ids):
        return self.centers[np.clip(LLAMA_WORDS - ids - 1, 0, len(self.centers) - 1)]


def chunk_values(low: float, high: float):
    return SHAPES.flatmap(lambda shape: arrays(np.float64, shape, elements=st.floats(low, high)))


@given(chunk_values(-3, 3))
def test_ids_and_values_are_those_of_openvla(chunks):
    reference, (_, chunk_size, action_dim) = ReferenceOpenVLA(), chunks.shape
    ids = UNIFORM.encode(chunks)
    words = openvla_ids(np.array(ids), LLAMA_WORDS)
    assert words.tolist() == reference.encode(chunks).reshape(len(chunks), -1).tolist()
    assert openvla_ids(words, LLAMA_WORDS).tolist() == ids
    np.testing.assert_array_equal(
        UNIFORM.decode(ids, chunk_size, action_dim), reference.decode(reference.encode(chunks))
    )


def test_every_word_of_openvla_decodes_to_its_value():
    words = np.arange(LLAMA_WORDS - 256, LLAMA_WORDS)
    ids = openvla_ids(words, LLAMA_WORDS)
    assert sorted(ids.tolist()) == list(range(256))
    np.testing.assert_array_equal(UNIFORM.decode([ids.tolist()], 256, 1)[0, :, 0], ReferenceOpenVLA().decode(words))


def test_the_upper_end_has_an_id_of_its_own_and_decodes_like_the_last_bin():
    at_the_end, below_it = UNIFORM.encode(np.array([[[1.0], [np.nextafter(1, 0)]]]))[0]
    assert (at_the_end, below_it) == (255, 254)
    first, second = UNIFORM.decode([[255, 254]], 2, 1).ravel()
    assert first == second == pytest.approx(1 - 1 / 255)


@pytest.mark.parametrize("word", [LLAMA_WORDS, LLAMA_WORDS - 257, 0])
def test_words_that_openvla_clamps_are_refused(word):
    assert np.isfinite(ReferenceOpenVLA().decode(np.array(word)))
    with pytest.raises(MalformedTokensError, match="may not stand"):
        UNIFORM.decode([[int(openvla_ids(np.array(word), LLAMA_WORDS))]], 1, 1)


@given(chunk_values(-1, 1), st.integers(2, 300))
def test_uniform_bins_err_by_half_a_bin_at_most(chunks, bins):
    tokenizer = BinTokenizer.fit(CHUNKS, bins=bins)
    decoded = tokenizer.decode(tokenizer.encode(chunks), *chunks.shape[1:])
    assert np.abs(decoded - chunks).max() <= 1 / (bins - 1) + 1e-12


@pytest.mark.parametrize("tokenizer", [UNIFORM, QUANTILES], ids=["uniform", "quantiles"])
@given(data=st.data())
def test_whatever_the_grammar_allows_decodes_and_is_encoded_again(tokenizer, data):
    grammar = tokenizer.grammar(5, 3)
    assert grammar.longest == grammar.total == 15
    assert grammar.allowed[0, 1:].all()
    assert not grammar.allowed[0, 0].any()
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), min_size=15, max_size=15))
    decoded = tokenizer.decode([ids], 5, 3)
    assert decoded.shape == (1, 5, 3)
    # The last two uniform ids share a value.
    np.testing.assert_array_equal(tokenizer.decode(tokenizer.encode(decoded), 5, 3), decoded)


def test_order_is_step_by_step():
    chunk = np.array([[[-1.0, 0.0, 1.0], [1.0, 0.0, -1.0]]])
    assert UNIFORM.encode(chunk) == [[0, 127, 255, 255, 127, 0]]


def test_quantile_bins_hold_equally_many_values():
    chunks = np.random.default_rng(0).normal(size=(50, 20, 2)) ** 3
    ids = np.array(BinTokenizer.fit(chunks, bins=64, quantiles=True).encode(chunks)).reshape(-1, 2)
    for joint in ids.T:
        held = np.bincount(joint, minlength=64)
        assert held.max() - held.min() <= 1


def test_quantile_bins_suit_skewed_values_better():
    chunks = np.random.default_rng(0).normal(size=(50, 20, 2)) ** 3
    errors = []
    for quantiles in (False, True):
        tokenizer = BinTokenizer.fit(chunks, bins=16, quantiles=quantiles)
        errors.append(np.abs(tokenizer.decode(tokenizer.encode(chunks), 20, 2) - chunks).mean())
    assert errors[1] < errors[0]


def test_a_joint_with_few_values_keeps_them_exactly():
    rng = np.random.default_rng(0)
    chunks = np.stack([rng.choice([-1.0, 0.3, 1.0], (30, 10)), rng.normal(size=(30, 10))], axis=2)
    tokenizer = BinTokenizer.fit(chunks, bins=32, quantiles=True)
    np.testing.assert_array_equal(tokenizer.decode(tokenizer.encode(chunks), 10, 2)[:, :, 0], chunks[:, :, 0])
    assert np.isin(tokenizer.centers[0], [-1.0, 0.3, 1.0]).all(), (
        "an id that nothing falls into decodes to a value, too"
    )


def test_quantile_bins_never_leave_the_fitted_values():
    decoded = QUANTILES.decode(QUANTILES.encode(100 * CHUNKS), 10, 3)
    assert (decoded >= CHUNKS.min(axis=(0, 1))).all()
    assert (decoded <= CHUNKS.max(axis=(0, 1))).all()


def test_declared_constant_joint_is_kept():
    chunks = CHUNKS.copy()
    chunks[:, :, 1] = 0
    for quantiles in (False, True):
        tokenizer = BinTokenizer.fit(chunks, quantiles=quantiles, constant_joints=[1])
        assert np.abs(tokenizer.decode(tokenizer.encode(chunks), 10, 3)[:, :, 1]).max() < 1e-12
    with pytest.raises(ValueError, match=r"joints \[1\] of 3 never move"):
        BinTokenizer.fit(chunks)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([[0] * 6, [0] * 5], r"expected 6 action tokens, got 5 in sequence 1: \[0, 0, 0, 0, 0\]"),
        ([[0] * 7], "expected 6 action tokens, got 7"),
        ([[0, 0, 256, 0, 0, 0]], r"first is 256 at place 2 of sequence 0: expected 0..255, got \[0, 0, 256, 0, 0, 0\]"),
        ([[0, -1, 0, 0, 0, 0]], "first is -1 at place 1"),
        ([[0.5] * 6], "expected integer action tokens"),
    ],
)
def test_malformed_ids_are_named(ids, message):
    with pytest.raises(MalformedTokensError, match=message):
        UNIFORM.decode(ids, 2, 3)


def test_no_chunks_are_no_tokens():
    assert UNIFORM.encode(np.zeros((0, 2, 3))) == []
    assert UNIFORM.decode([], 2, 3).shape == (0, 2, 3)


def test_quantile_bins_serve_their_joints_only():
    for call in (lambda: QUANTILES.decode([[0, 0]], 1, 2), lambda: QUANTILES.grammar(1, 2)):
        with pytest.raises(ValueError, match="fitted to 3 joints, got 2"):
            call()
    with pytest.raises(ValueError, match="shape"):
        QUANTILES.encode(CHUNKS[:, :, :2])


def test_bad_fits_are_refused():
    with pytest.raises(ValueError, match="at least 2 bins, got 1"):
        BinTokenizer.fit(CHUNKS, bins=1)
    with pytest.raises(ValueError, match="at least 256 steps for 256 quantile bins, got 100"):
        BinTokenizer.fit(CHUNKS[:10], quantiles=True)


@pytest.mark.parametrize("tokenizer", [UNIFORM, QUANTILES], ids=["uniform", "quantiles"])
def test_loaded_is_saved(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    loaded = load_action_tokenizer(tmp_path)
    assert isinstance(loaded, BinTokenizer)
    assert loaded.quantiles == tokenizer.quantiles
    np.testing.assert_array_equal(loaded.edges, tokenizer.edges)
    np.testing.assert_array_equal(loaded.centers, tokenizer.centers)
    assert loaded.encode(CHUNKS) == tokenizer.encode(CHUNKS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bins": 8}, r"edges \(3, 15\) and centers \(3, 16\), but 8 bins"),
        ({"quantiles": False}, "but 16 bins"),
        ({"edges": [[1.0, 2.0], [0.0]]}, "holds no bins"),
        ({"centers": [[10**400] * 16] * 3}, "holds no bins"),
        ({"centers": [["a"] * 16] * 3}, "holds no bins"),
        ({"centers": [[float("nan")] * 16] * 3}, "must be finite"),
        ({"edges": [list(range(15, 0, -1))] * 3}, "must ascend"),
        ({"scale": 10}, "unknown"),
    ],
)
def test_foreign_fields_are_refused(changes, message, tmp_path):
    QUANTILES.save(tmp_path)
    path = tmp_path / "action_tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ValueError, match=message):
        BinTokenizer.load(tmp_path)
