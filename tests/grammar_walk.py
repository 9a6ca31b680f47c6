"""Following a token sequence through its grammar."""

from lerobot_vla_plugin.action_tokenizers import TokenGrammar


def assert_obeys(grammar: TokenGrammar, ids: list[int]) -> None:
    """Assert that every id may stand where it does, and that the chunk is complete behind the last.

    Args:
        grammar: What is allowed.
        ids: One sequence.
    """
    state, missing = 0, grammar.total
    for place, token in enumerate(ids):
        assert grammar.allowed[state, missing, token], f"id {token} at place {place} of {ids}"
        state, missing = grammar.next_states[state, token], missing - grammar.counts[state, token]
    assert (state, missing) == (0, 0)
    assert len(ids) <= grammar.longest
