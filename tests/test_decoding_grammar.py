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


def lay_out(grammar, sequences):
    longest = 1 + max(map(len, sequences))
    padded = [[*ids, *[grammar.end_marker] * (longest - len(ids))] for ids in sequences]
    return grammar.lay_out(torch.tensor(padded))


def test_a_draft_that_is_followed_says_itself(token_grammar, grammar):
    sequences, _ = draw(grammar, token_grammar.longest, 0.0, 0.0)
    assert any(ids[i] >= VOCAB_SIZE - 4 for ids in sequences for i in range(len(ids))), "no character of two tokens"
    draft = lay_out(grammar, sequences)
    for sample, ids in enumerate(sequences):
        rows = grammar.follow(torch.tensor([ids]))
        said = [table[sample, rows[0].long()].tolist() for table in draft]
        assert said == [[*ids, grammar.end_marker], [0] * (len(ids) + 1)]


def test_beside_its_way_a_draft_says_what_it_had_begun(token_grammar, grammar):
    sequences, _ = draw(grammar, token_grammar.longest, 0.0, 0.0)
    draft, states = lay_out(grammar, sequences), len(token_grammar.counts)
    for sample, ids in enumerate(sequences[:20]):
        before = grammar.missing(grammar.follow(torch.tensor([ids])))[0].tolist()
        on_the_way = set(before)
        for missing in set(range(1, TOTAL + 1)) - on_the_way:
            begun = max(i for i, left in enumerate(before) if left > missing)
            said = [table[sample, missing * states].item() for table in draft]
            assert said == [ids[begun], before[begun] - missing]


def test_a_draft_has_something_to_say_at_a_dead_end(grammar, token_grammar):
    draft = lay_out(grammar, draw(grammar, token_grammar.longest, 0.0, 0.0)[0])
    dead_end = torch.full((200, 3), grammar.first_row + grammar.num_states)
    assert all((said >= 0).all() for said in draft.at(dead_end))
