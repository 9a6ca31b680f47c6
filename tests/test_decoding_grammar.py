"""The mask under which every decode is a whole chunk."""

import pytest
import torch
from token_models import TOTAL, VOCAB_SIZE, is_whole_chunk, make_token_grammar

from lerobot_vla_plugin.action_tokenizers import TokenGrammar
from lerobot_vla_plugin.models.token_decoding import DecodingGrammar

HUGE = torch.finfo(torch.float32).max


@pytest.fixture(scope="module")
def token_grammar() -> TokenGrammar:
    return make_token_grammar()


@pytest.fixture(scope="module")
def grammar(token_grammar) -> DecodingGrammar:
    return DecodingGrammar(token_grammar.allowed, token_grammar.counts, token_grammar.next_states)


def draw(grammar, steps, hostile, share):
    """200 sequences from logits of which a share is replaced, and the rows that they end in."""
    generator = torch.Generator().manual_seed(0)
    rows, chosen = grammar.start(200), []
    for _ in range(steps):
        logits = torch.randn(200, VOCAB_SIZE + 1, generator=generator)
        replaced = torch.rand(logits.shape, generator=generator) < share
        token, rows = grammar.choose(logits.masked_fill(replaced, hostile), rows)
        chosen.append(token)
    sequences = [[i for i in ids if i != grammar.end_marker] for ids in torch.stack(chosen, dim=1).tolist()]
    return sequences, rows.tolist()


@pytest.mark.parametrize("hostile", [HUGE, -HUGE, 0.0])
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_finite_logits_complete_every_chunk(hostile, share, token_grammar, grammar):
    sequences, rows = draw(grammar, token_grammar.longest, hostile, share)
    assert set(rows) == {0}
    assert all(is_whole_chunk(token_grammar, ids) for ids in sequences)


@pytest.mark.parametrize("hostile", [torch.inf, -torch.inf, torch.nan])
@pytest.mark.parametrize("share", [0.03, 1.0])
def test_others_never_pass_as_a_chunk_that_is_none(hostile, share, token_grammar, grammar):
    sequences, rows = draw(grammar, token_grammar.longest, hostile, share)
    for ids, row in zip(sequences, rows, strict=True):
        assert row != 0 or is_whole_chunk(token_grammar, ids)


def test_allows_what_the_tokenizers_grammar_allows(token_grammar, grammar):
    states = len(token_grammar.counts)
    for missing in range(1, TOTAL + 1):
        for state in range(states):
            free = grammar.penalties[missing * states + state] == 0
            assert (free.numpy() == [*token_grammar.allowed[state, missing], False]).all()
    assert (grammar.penalties[0] == 0).nonzero().tolist() == [[grammar.end_marker]]


def test_follows_what_is_missing(token_grammar, grammar):
    ids = [0, VOCAB_SIZE - 1, 1, 2]  # the second one ends inside a character
    missing, state, expected = TOTAL, 0, [TOTAL]
    for token in ids:
        missing, state = missing - token_grammar.counts[state, token], token_grammar.next_states[state, token]
        expected.append(missing)
    assert grammar.missing(grammar.follow(torch.tensor([ids])))[0].tolist() == expected


def test_tables_are_not_among_the_weights(grammar):
    assert not grammar.state_dict()
