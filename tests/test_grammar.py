"""A grammar allows exactly what can still be completed; checked against every sequence of small grammars."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from masked_draws import LOGITS, draw_sequences

from lerobot_vla_plugin.action_tokenizers import TokenGrammar
from lerobot_vla_plugin.action_tokenizers.grammar import FORBIDDEN


@st.composite
def grammars(draw: st.DrawFn) -> TokenGrammar:
    """Up to 3 states, 4 tokens and 5 units; a token that completes nothing leads to a later state, so none repeats."""
    states, vocab_size, total = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(1, 5))
    counts = np.full((states, vocab_size), FORBIDDEN, dtype=np.int32)
    next_states = np.zeros((states, vocab_size), dtype=np.int32)
    for state in range(states):
        for token in range(vocab_size):
            next_states[state, token] = after = draw(st.integers(0, states - 1))
            fewest = 0 if after > state else 1
            counts[state, token] = draw(st.just(FORBIDDEN) | st.integers(fewest, 3))
    return TokenGrammar(counts, next_states, total)


def endings(grammar: TokenGrammar, state: int, missing: int) -> list[tuple[int, ...]]:
    """Every sequence that completes the chunk from here, by trying all tokens."""
    if missing == 0:
        return [()] if state == 0 else []
    found = []
    for token, count in enumerate(grammar.counts[state]):
        if 0 <= count <= missing:
            after = int(grammar.next_states[state, token])
            found += [(token, *rest) for rest in endings(grammar, after, missing - int(count))]
    return found


@given(grammars())
def test_allowed_is_what_begins_some_ending(grammar: TokenGrammar) -> None:
    states, vocab_size = grammar.counts.shape
    for state in range(states):
        for missing in range(grammar.total + 1):
            firsts = {ending[0] for ending in endings(grammar, state, missing) if ending}
            assert set(np.flatnonzero(grammar.allowed[state, missing])) == firsts
    assert grammar.allowed.shape == (states, grammar.total + 1, vocab_size)


@given(grammars())
def test_longest_is_the_longest_of_all(grammar: TokenGrammar) -> None:
    sequences = endings(grammar, 0, grammar.total)
    if sequences:
        assert grammar.longest == max(map(len, sequences))
    else:
        with pytest.raises(ValueError, match="has exactly"):
            _ = grammar.longest


@given(grammars(), st.sampled_from(sorted(LOGITS)))
def test_a_draw_is_one_of_the_sequences(grammar: TokenGrammar, logits: str) -> None:
    sequences = set(endings(grammar, 0, grammar.total))
    if not sequences:
        return
    draws = draw_sequences(grammar, LOGITS[logits], 20, np.random.default_rng(0))
    assert draws.is_whole.all()
    assert {tuple(sequence) for sequence in draws.sequences()} <= sequences


def test_all_sequences_are_drawn() -> None:
    """Units of 1 and 2, four in all: five sequences."""
    grammar = TokenGrammar(np.array([[1, 2]], dtype=np.int32), np.zeros((1, 2), dtype=np.int32), 4)
    draws = draw_sequences(grammar, LOGITS["constant"], 200, np.random.default_rng(0))
    assert {tuple(sequence) for sequence in draws.sequences()} == set(endings(grammar, 0, 4))


def test_tokens_that_complete_nothing_for_ever_are_refused() -> None:
    counts = np.array([[0, 1], [0, 1]], dtype=np.int32)
    grammar = TokenGrammar(counts, np.array([[1, 0], [0, 0]], dtype=np.int32), 3)
    with pytest.raises(ValueError, match="for ever"):
        _ = grammar.longest
