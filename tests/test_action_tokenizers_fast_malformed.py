"""FAST sequences through the grammar decode, corrupted ones are refused by name, and nothing is in between."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from fast_cases import CHUNK_SIZE, JOINTS, KINDS, any_coefficients, chunks_of, make_tokenizer, published
from fast_reference import smooth_chunks
from grammar_walk import assert_obeys
from hypothesis import given
from hypothesis import strategies as st
from masked_draws import LOGITS, draw_sequences, replace_one_token

from lerobot_vla_plugin.action_tokenizers import FastTokenizer, MalformedTokensError, TokenGrammar


@pytest.mark.parametrize("logits", ["random, temperature 1", "unfinished characters first", "what overshoots first"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_the_grammar_allows_decodes(kind: str, logits: str) -> None:
    tokenizer = make_tokenizer(kind)
    draws = draw_sequences(tokenizer.grammar(CHUNK_SIZE, JOINTS), LOGITS[logits], 3000, np.random.default_rng(0))
    assert draws.is_whole.all()
    coefficients = tokenizer.decode_coefficients(draws.sequences(), CHUNK_SIZE, JOINTS)
    assert coefficients.min() >= tokenizer.min_token
    assert coefficients.max() <= tokenizer.max_token


@given(seed=st.integers(0, 2**32 - 1), kind=st.sampled_from(KINDS))
def test_what_is_encoded_obeys_the_grammar(seed: int, kind: str) -> None:
    tokenizer = make_tokenizer(kind)
    grammar = grammar_of(tokenizer)
    for sequence in tokenizer.encode(chunks_of(any_coefficients(tokenizer, seed), tokenizer)):
        assert_obeys(grammar, sequence)


@cache
def grammar_of(tokenizer: FastTokenizer) -> TokenGrammar:
    return tokenizer.grammar(CHUNK_SIZE, JOINTS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_corrupted_sequence_is_refused_or_a_whole_chunk(kind: str) -> None:
    """A replaced, a lost or an added id: refused unless the grammar has it, too."""
    tokenizer, rng = make_tokenizer(kind), np.random.default_rng(0)
    ids = tokenizer.encode(smooth_chunks(400, CHUNK_SIZE, JOINTS, seed=4))
    corrupted = list(replace_one_token(ids, tokenizer.vocab_size, rng))
    corrupted += [sequence[:-1] for sequence in ids]
    corrupted += [[*sequence, int(rng.integers(tokenizer.vocab_size))] for sequence in ids]
    refused = 0
    for sequence in corrupted:
        try:
            coefficients = tokenizer.decode_coefficients([sequence], CHUNK_SIZE, JOINTS)
        except MalformedTokensError:
            refused += 1
            continue
        assert coefficients.shape == (1, CHUNK_SIZE, JOINTS)
        assert tokenizer.min_token <= coefficients.min() <= coefficients.max() <= tokenizer.max_token
    assert 800 < refused < len(corrupted)


FAULTS = (
    "too short",
    "too long",
    "empty",
    "unknown id",
    "negative id",
    "no whole number",
    "beyond 64 bits",
    "ends inside a character",
    "begins inside a character",
    "broken inside",
    "continues twice",
)


def malformed_sequence(tokenizer: FastTokenizer, fault: str) -> list:
    """A sequence that is no chunk."""
    good = tokenizer.encode(smooth_chunks(1, CHUNK_SIZE, JOINTS))[0]
    lead, rest, one = (int(np.flatnonzero(tokenizer._tokens == byte)[0]) for byte in (b"\xc3", b"\x80", b"\x41"))
    whole = CHUNK_SIZE * JOINTS
    sequences = {
        "too short": good[:-1],
        "too long": [*good, *good],
        "empty": [],
        "unknown id": [*good, tokenizer.vocab_size],
        "negative id": [*good, -1],
        "no whole number": [*good[:-1], good[-1] + 0.5],
        "beyond 64 bits": [2**70],
        "ends inside a character": [*[one] * (whole - 1), lead],
        "begins inside a character": [rest, *[one] * whole],
        "broken inside": [lead, *[one] * (whole - 1)],
        "continues twice": [lead, rest, rest, *[one] * (whole - 1)],
    }
    return sequences[fault]


@pytest.mark.parametrize("fault", FAULTS)
def test_malformed_sequence_is_named(fault: str) -> None:
    tokenizer = make_tokenizer("like FAST+")
    check_refused(tokenizer, malformed_sequence(tokenizer, fault))


def check_refused(tokenizer: FastTokenizer, sequence: list) -> None:
    good = tokenizer.encode(smooth_chunks(2, CHUNK_SIZE, JOINTS))
    with pytest.raises(MalformedTokensError) as refusal:
        tokenizer.decode([good[0], sequence, good[1]], CHUNK_SIZE, JOINTS)
    assert "sequence 1" in str(refusal.value)
    assert str(sequence) in str(refusal.value)


def test_a_character_torn_between_two_sequences_is_refused() -> None:
    """Together their bytes would be valid, and each begins the right number of characters."""
    tokenizer, whole = make_tokenizer("like FAST+"), CHUNK_SIZE * JOINTS
    token = {written: index for index, written in enumerate(tokenizer._tokens)}
    first = [*[token[b"\x41"]] * (whole - 1), token[b"\xc3"]]
    second = [token[b"\x80"], *[token[b"\x41"]] * whole]
    with pytest.raises(MalformedTokensError, match="sequence 0"):
        tokenizer.decode([first, second], CHUNK_SIZE, JOINTS)


def test_a_character_beyond_the_alphabet_is_refused() -> None:
    """U+FFFD stands for a broken character; taken as a coefficient it reached 1,303 in normalised units."""
    tokenizer = make_tokenizer("like FAST+")
    token = {written: index for index, written in enumerate(tokenizer._tokens)}
    replacement = [token[b"\xef"], token[b"\xbf"], token[b"\xbd"]]
    sequence = [*replacement, *[token[b"\x41"]] * (CHUNK_SIZE * JOINTS - 1)]
    assert published("like FAST+").decode([sequence], CHUNK_SIZE, JOINTS).max() > 1000
    check_refused(tokenizer, sequence)
    overlong = [token[b"\xc1"], token[b"\x81"], *[token[b"\x41"]] * (CHUNK_SIZE * JOINTS - 1)]
    check_refused(tokenizer, overlong)


def test_ids_that_are_no_sequences_are_refused() -> None:
    with pytest.raises(MalformedTokensError):
        make_tokenizer("own").decode([1, 2, 3], CHUNK_SIZE, JOINTS)


@pytest.mark.parametrize("kind", KINDS)
def test_coefficients_of_an_id_are_those_it_decodes_to(kind: str) -> None:
    tokenizer = make_tokenizer(kind)
    counts = tokenizer.grammar(CHUNK_SIZE, JOINTS).counts[0]
    after = tokenizer.grammar(CHUNK_SIZE, JOINTS).next_states[0]
    any_chunk = replace(tokenizer, chunk_size=None, action_dim=None)
    for index, coefficients in enumerate(tokenizer.token_coefficients):
        whole = counts[index] >= 0 and after[index] == 0
        assert (coefficients is not None) == whole
        if coefficients is not None:
            assert len(coefficients) == counts[index] == tokenizer.coefficient_counts[index]
            assert any_chunk.decode_coefficients([[index]], 1, len(coefficients)).ravel().tolist() == [*coefficients]
