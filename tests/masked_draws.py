"""Action tokens drawn by the hundred thousand, with a `TokenGrammar`'s mask and without, from logits that mean ill.

A model's logits could be anything, so here they are made up. All sequences of a call share the logits of a step and
draw on their own: their distribution is that of a soft-max over the allowed ids, at a price that allows 10^6 of them.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct

from lerobot_vla_plugin.action_tokenizers import FastTokenizer, MalformedTokensError, TokenGrammar
from lerobot_vla_plugin.action_tokenizers.chunk_codec import ChunkCodec

# What a float32 model can emit at worst.
HUGE = float(np.finfo(np.float32).max)
# The smallest coefficient of the released FAST+.
FAST_PLUS_MIN_TOKEN = -354
# A few hundred tokens each, as Python's integers: some 100 MB.
_DECODED_AT_ONCE = 5_000


class Step(NamedTuple):
    """One step of many sequences.

    Attributes:
        counts: Units that each id completes in each row's state, (rows, vocab_size); negative where it cannot follow.
        leaves_open: Whether it ends inside a character or a level, (rows, vocab_size).
        allowed: The mask, (rows, vocab_size).
        missing: Units still missing, (rows,).
    """

    counts: NDArray
    leaves_open: NDArray
    allowed: NDArray
    missing: NDArray


Logits = Callable[[Step, np.random.Generator], NDArray]


def _random(spread: float) -> Logits:
    return lambda step, generator: generator.normal(scale=spread, size=step.counts.shape[1])


def _extremes(step: Step, generator: np.random.Generator) -> NDArray:
    return generator.choice([-HUGE, 0.0, HUGE], size=step.counts.shape[1])


LOGITS: dict[str, Logits] = {
    "random, temperature 1": _random(1.0),
    "random, temperature 0.1": _random(10.0),
    "constant": lambda step, generator: np.zeros(step.counts.shape[1]),
    "longest tokens first": lambda step, generator: 2.0 * step.counts,
    "unfinished characters first": lambda step, generator: np.where(step.leaves_open, 9.0, 0.0),
    "what overshoots first": lambda step, generator: np.where(step.counts > step.missing[:, None], HUGE, -HUGE),
    "what is forbidden first": lambda step, generator: np.where(step.allowed, -HUGE, HUGE),
    "extremes of float32": _extremes,
}


class Draws(NamedTuple):
    """Sequences of ids and whether each is a whole chunk by the grammar's book-keeping.

    Attributes:
        ids: (n, longest); what follows a sequence's end means nothing.
        lengths: (n,).
        is_whole: (n,).
    """

    ids: NDArray[np.int32]
    lengths: NDArray[np.int64]
    is_whole: NDArray[np.bool_]

    def sequences(self) -> list[list[int]]:
        """Ids of each sequence."""
        return [row[:length] for row, length in zip(self.ids.tolist(), self.lengths.tolist(), strict=True)]


def _softmax_draw(logits: NDArray, allowed: NDArray, rows: NDArray, generator: np.random.Generator) -> NDArray:
    """One id for each sequence from the soft-max of its row; `rows` (n,) says which."""
    masked = np.where(allowed, logits, -np.inf)
    cumulative = np.exp(masked - masked.max(axis=1, keepdims=True)).cumsum(axis=1)
    cumulative /= cumulative[:, -1:]
    # Row r occupies r..r + 1. A uniform number of 24 bits added to r stays exact, and so below r + 1.
    cumulative += np.arange(len(cumulative))[:, None]
    uniform = generator.random(len(rows), dtype=np.float32).astype(np.float64)
    return np.searchsorted(cumulative.ravel(), rows + uniform, side="right") - rows * logits.shape[-1]


def draw_sequences(
    grammar: TokenGrammar, logits: Logits, num: int, generator: np.random.Generator, masked: bool = True
) -> Draws:
    """Draw sequences token by token until each chunk is complete, or, without the mask, beyond saving.

    Args:
        grammar: What is allowed.
        logits: One of `LOGITS`.
        num: Sequences to draw.
        generator: Source of chance.
        masked: Obey the grammar; without, a sequence ends when it has all units or more, or an id that cannot follow.
    """
    state, missing = np.zeros(num, dtype=np.int64), np.full(num, grammar.total)
    lengths, is_whole = np.zeros(num, dtype=np.int64), np.zeros(num, dtype=bool)
    columns: list[NDArray[np.int32]] = []
    active = np.arange(num)
    while len(active):
        places = state[active] * (grammar.total + 1) + missing[active]
        order = np.argsort(places)  # neighbours look into the same row, which is several times faster
        active = active[order]
        keys, rows = np.unique(places[order], return_inverse=True)
        row_states, row_missing = np.divmod(keys, grammar.total + 1)
        counts, next_states = grammar.counts[row_states], grammar.next_states[row_states]
        allowed = grammar.allowed[row_states, row_missing]
        step = Step(counts, (counts >= 0) & (next_states != 0), allowed, row_missing)
        drawn = _softmax_draw(logits(step, generator), allowed if masked else np.ones_like(allowed), rows, generator)
        columns.append(np.zeros(num, dtype=np.int32))
        columns[-1][active] = drawn
        lengths[active] += 1
        completed = counts[rows, drawn]
        state[active], missing[active] = next_states[rows, drawn], missing[active] - completed
        is_whole[active] = (completed >= 0) & (missing[active] == 0) & (state[active] == 0)
        over = (completed < 0) | (missing[active] < 0) | is_whole[active]
        active = active[~over]
    return Draws(np.stack(columns, axis=1), lengths, is_whole)


def replace_one_token(
    sequences: list[list[int]], vocab_size: int, generator: np.random.Generator
) -> Iterator[list[int]]:
    """Every sequence with one of its ids replaced by another at random: the smallest mistake a model can make."""
    for ids in sequences:
        place, other = generator.integers(len(ids)), generator.integers(vocab_size - 1)
        yield [*ids[:place], int(other + (other >= ids[place])), *ids[place + 1 :]]


def like_fast_plus(fast: ChunkCodec, chunks: NDArray, vocab_size: int = 2048) -> ChunkCodec:
    """A codec whose FAST tokenizer has an alphabet as wide as FAST+'s, so that most characters take two bytes.

    Args:
        fast: Where scaling and sizes are taken from.
        chunks: Normalised chunks to fit to, (n, c, j).
        vocab_size: Ids.
    """
    # A steady pose so far out that its lowest frequency is that coefficient.
    pose = np.full((1, *chunks.shape[1:]), FAST_PLUS_MIN_TOKEN / (10 * fast.chunk_size**0.5))
    tokenizer = FastTokenizer.fit(np.concatenate([chunks, pose]), vocab_size=vocab_size)
    return replace(fast, tokenizer=tokenizer)


class Faults(NamedTuple):
    """How many of some sequences were refused, or decoded to what no data had.

    Attributes:
        malformed: Refused by the tokenizer.
        outside_alphabet: With a coefficient that FAST was not fitted on, or none that it could have written.
        outside_span: With an action beyond the smallest and largest of the data.
    """

    malformed: int = 0
    outside_alphabet: int = 0
    outside_span: int = 0

    def plus(self, other: "Faults") -> "Faults":
        """Both together."""
        return Faults(*(a + b for a, b in zip(self, other, strict=True)))


def count_faults(codec: ChunkCodec, sequences: list[list[int]], generator: np.random.Generator) -> Faults:
    """Decode sequences for an arm that stands anywhere."""
    faults = Faults()
    for start in range(0, len(sequences), _DECODED_AT_ONCE):
        some = sequences[start : start + _DECODED_AT_ONCE]
        faults = faults.plus(_faults_of(codec, some, generator.uniform(-180, 180, (len(some), codec.action_dim))))
    return faults


def _faults_of(codec: ChunkCodec, sequences: list[list[int]], states: NDArray) -> Faults:
    try:
        actions = codec.decode(sequences, states)
    except MalformedTokensError:
        if len(sequences) == 1:
            return Faults(malformed=1)
        half = len(sequences) // 2
        first = _faults_of(codec, sequences[:half], states[:half])
        return first.plus(_faults_of(codec, sequences[half:], states[half:]))
    scaling = codec.scaling
    inside = (actions >= scaling.span_low) & (actions <= scaling.span_high)  # False for a NaN, too
    return Faults(0, _outside_alphabet(codec, sequences), int((~inside.all(axis=(1, 2))).sum()))


def _outside_alphabet(codec: ChunkCodec, sequences: list[list[int]]) -> int:
    tokenizer = codec.tokenizer
    if not isinstance(tokenizer, FastTokenizer):
        return 0
    chunks = tokenizer.decode(sequences, codec.chunk_size, codec.action_dim)
    exact = np.asarray(dct(chunks, axis=1, norm="ortho")) * tokenizer.scale
    rounded = np.rint(exact)
    known = (rounded >= tokenizer.min_token) & (rounded <= tokenizer.max_token) & (np.abs(exact - rounded) < 1e-6)
    return int((~known.all(axis=(1, 2))).sum())
