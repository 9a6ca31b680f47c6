"""Through the mask every sequence is a chunk, whatever the logits; `benchmarks/masked_decoding.py` draws a million."""

from functools import cache

import numpy as np
import pytest
from masked_draws import (
    FAST_PLUS_MIN_TOKEN,
    LOGITS,
    Faults,
    count_faults,
    draw_sequences,
    like_fast_plus,
    replace_one_token,
)
from reaching_motion import reaching_chunks

from lerobot_vla_plugin.action_tokenizers import FastTokenizer, MalformedTokensError
from lerobot_vla_plugin.action_tokenizers.chunk_codec import ChunkCodec

JOINTS = ("shoulder_pan", "elbow_flex", "gripper")
KINDS = ("FAST", "FAST, relative", "like FAST+", "bins", "VQ")


@cache
def make_codec(kind: str) -> ChunkCodec:
    """A codec for chunks of 12 x 3."""
    actions, states = reaching_chunks(400, chunk_size=12, joints=len(JOINTS))

    def fit(name: str, **options) -> ChunkCodec:
        return ChunkCodec.fit(actions, states, JOINTS, name, **options)

    if kind == "like FAST+":
        fast = make_codec("FAST")
        return like_fast_plus(fast, fast.scaling.normalize(actions, states), vocab_size=512)
    if kind == "FAST":
        return fit("fast", vocab_size=256)
    if kind == "FAST, relative":
        return fit("fast", vocab_size=256, relative=True)
    return fit("bins") if kind == "bins" else fit("vq", codes=16, levels=2, steps=3)


def is_refused(codec: ChunkCodec, ids: list[int]) -> bool:
    try:
        codec.tokenizer.decode([ids], codec.chunk_size, codec.action_dim)
    except MalformedTokensError:
        return True
    return False


def test_alphabet_is_as_wide_as_that_of_fast_plus() -> None:
    tokenizer = make_codec("like FAST+").tokenizer
    assert isinstance(tokenizer, FastTokenizer)
    assert tokenizer.min_token <= FAST_PLUS_MIN_TOKEN
    assert tokenizer.token_coefficients.count(None) > 5  # ids that begin or end inside a character


@pytest.mark.parametrize("logits", LOGITS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_masked_draw_is_a_chunk_of_the_data(kind: str, logits: str) -> None:
    codec, generator = make_codec(kind), np.random.default_rng(0)
    draws = draw_sequences(codec.grammar, LOGITS[logits], 300, generator)
    assert draws.is_whole.all()
    assert draws.lengths.max() <= codec.grammar.longest
    assert count_faults(codec, draws.sequences(), generator) == Faults()


@pytest.mark.parametrize("kind", KINDS)
def test_decoder_and_grammar_agree_on_what_is_malformed(kind: str) -> None:
    codec, generator = make_codec(kind), np.random.default_rng(0)
    for logits in ("random, temperature 1", "constant", "unfinished characters first"):
        draws = draw_sequences(codec.grammar, LOGITS[logits], 150, generator, masked=False)
        refused = [is_refused(codec, ids) for ids in draws.sequences()]
        np.testing.assert_array_equal(refused, ~draws.is_whole)


@pytest.mark.parametrize("kind", ["FAST", "FAST, relative", "like FAST+"])
def test_most_mistakes_without_the_mask_are_malformed(kind: str) -> None:
    codec, generator = make_codec(kind), np.random.default_rng(0)
    actions, states = reaching_chunks(200, chunk_size=12, joints=len(JOINTS), seed=1)
    replaced = replace_one_token(codec.encode(actions, states), codec.vocab_size, generator)
    assert np.mean([is_refused(codec, ids) for ids in replaced]) > 0.5
    draws = draw_sequences(codec.grammar, LOGITS["constant"], 500, generator, masked=False)
    assert draws.is_whole.mean() < 0.5


def test_longest_sequence_is_reached() -> None:
    codec = make_codec("like FAST+")

    def shortest_steps_first(step, generator):
        return np.where(step.counts == 0, 2000.0, -100.0 * step.counts)

    draws = draw_sequences(codec.grammar, shortest_steps_first, 50, np.random.default_rng(0))
    assert draws.lengths.max() == codec.grammar.longest
