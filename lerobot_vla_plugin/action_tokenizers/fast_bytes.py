"""Byte-level BPE as FAST uses it: a coefficient is a character, a character its UTF-8 bytes, a token a run of bytes.

A token may begin and end inside a character, so tokens are read as bytes, never one by one as text.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from .grammar import FORBIDDEN

# Last code point of one, two and three bytes in UTF-8; behind the last there is a gap (surrogates), so FAST ends there.
_LAST_OF_WIDTH = (0x7F, 0x7FF, 0xD7FF)
LAST_CODE = _LAST_OF_WIDTH[-1]


def _byte_symbols() -> list[str]:
    # Byte-level BPE writes a printable byte as the character of that code and the others, in order, as characters
    # from 256 on (Radford et al. 2019, the published GPT-2 vocabulary).
    printable = sorted(pre_tokenizers.ByteLevel.alphabet())
    symbols = {ord(symbol): symbol for symbol in printable if ord(symbol) < 256}
    others = (byte for byte in range(256) if byte not in symbols)
    symbols.update(zip(others, (symbol for symbol in printable if ord(symbol) >= 256), strict=True))
    return [symbols[byte] for byte in range(256)]


BYTE_SYMBOLS = _byte_symbols()


def train_bpe(texts: Iterable[str], last_code: int, vocab_size: int, show_progress: bool) -> Tokenizer:
    """Learn byte-level merges from texts whose characters are 0..`last_code`.

    Every byte of these characters is in the vocabulary, seen or not, so none can be lost in encoding. (The published
    trainer asks for the characters themselves instead of their byte symbols, and loses those it has not seen.)

    Raises:
        ValueError: The bytes alone are more than `vocab_size`.
    """
    needed = sorted({byte for code in range(last_code + 1) for byte in chr(code).encode()})
    if len(needed) >= vocab_size:
        raise ValueError(
            f"expected a vocab_size above {len(needed)}, the bytes of {last_code + 1} coefficient values, got "
            f"{vocab_size}; raise vocab_size or lower scale"
        )
    bpe = Tokenizer(models.BPE())
    # No split before merging: what looks like letters or digits is no border in a row of coefficients.
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        show_progress=show_progress,
        special_tokens=[],
        initial_alphabet=[BYTE_SYMBOLS[byte] for byte in needed],
        max_token_length=10000,
    )
    bpe.train_from_iterator(texts, trainer=trainer)
    return bpe


def token_bytes(vocabulary: Mapping[str, int]) -> list[bytes]:
    """Bytes of every id, as the byte-level decoder writes them.

    Args:
        vocabulary: Id of each token, ids 0..len(vocabulary) - 1.
    """
    byte_of = {symbol: byte for byte, symbol in enumerate(BYTE_SYMBOLS)}
    written = [b""] * len(vocabulary)
    for token, index in vocabulary.items():
        # The published trainer also adds raw characters; the decoder leaves a token with any unknown symbol as it is.
        known = all(symbol in byte_of for symbol in token)
        written[index] = bytes(byte_of[symbol] for symbol in token) if known else token.encode()
    return written


def encodable_codes(vocabulary: Mapping[str, int], last_code: int) -> NDArray[np.int64]:
    """Codes up to `last_code` that a vocabulary can spell, ascending: the symbol of each of their bytes is a token.

    Raises:
        ValueError: It can spell none.
    """
    single = {byte for byte, symbol in enumerate(BYTE_SYMBOLS) if symbol in vocabulary}
    spelled = [code for code in range(last_code + 1) if all(byte in single for byte in chr(code).encode())]
    if not spelled:
        raise ValueError("no coefficient can be written with this vocabulary: it holds no single bytes")
    return np.array(spelled)


def last_encodable_code(vocabulary: Mapping[str, int]) -> int:
    """Where the alphabet of a published vocabulary ends, which its files do not say.

    Such a vocabulary often holds all 256 bytes, which spell any character; codes of more bytes than the widest
    character of its tokens are taken as outside.

    Raises:
        ValueError: It can spell no code.
    """
    characters = chain.from_iterable(token.decode(errors="ignore") for token in token_bytes(vocabulary))
    widest = max((len(character.encode()) for character in characters), default=1)
    return int(encodable_codes(vocabulary, _LAST_OF_WIDTH[min(widest, 3) - 1])[-1])


def nearest_codes(codes: NDArray[np.int64], last_code: int) -> NDArray[np.int64]:
    """The member of `codes` (ascending) that is nearest to each of 0..`last_code`, the smaller of two."""
    every = np.arange(last_code + 1)
    above = np.searchsorted(codes, every).clip(max=len(codes) - 1)
    below = (above - 1).clip(min=0)
    return np.where(np.abs(every - codes[below]) <= np.abs(codes[above] - every), codes[below], codes[above])


def byte_states(last_code: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Reading characters 0..`last_code` byte by byte.

    A state is what may still follow of the character that has begun; state 0 is between characters. First bytes that
    may be followed by the same bytes share a state, so two-byte characters need one or two states.

    Returns:
        Characters that a byte completes in a state, (states, 256), FORBIDDEN where it may not follow, and the state
        after it, (states, 256).
    """
    tree: dict = {}
    for code in range(last_code + 1):
        branch = tree
        *first, last = chr(code).encode()
        for byte in first:
            branch = branch.setdefault(byte, {})
        branch[last] = None
    rows = _rows_of_states(tree)
    completes = np.full((len(rows), 256), FORBIDDEN, dtype=np.int32)
    after = np.zeros((len(rows), 256), dtype=np.int32)
    for state, row in enumerate(rows):
        for byte, following in row.items():
            completes[state, byte] = following == 0
            after[state, byte] = following
    return completes, after


def _rows_of_states(tree: dict) -> list[dict[int, int]]:
    # State after each byte, for every state; branches with the same continuations are one state.
    rows: list[dict[int, int]] = [{}]
    known: dict[frozenset, int] = {}

    def row_of(branch: dict) -> dict[int, int]:
        return {byte: 0 if following is None else state_of(following) for byte, following in branch.items()}

    def state_of(branch: dict) -> int:
        row = row_of(branch)
        state = known.setdefault(frozenset(row.items()), len(rows))
        if state == len(rows):
            rows.append(row)
        return state

    rows[0] = row_of(tree)
    return rows


def run_tokens(
    tokens: Sequence[bytes] | NDArray[np.object_], last_code: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """What every token does in every state of `byte_states`.

    Returns:
        Characters that the token completes, (states, vocab_size), FORBIDDEN where it may not follow, and the state
        after it, (states, vocab_size).
    """
    completes, after = byte_states(last_code)
    lengths = np.array([len(token) for token in tokens])
    padded = np.zeros((len(tokens), lengths.max()), dtype=np.uint8)
    padded[np.arange(lengths.max()) < lengths[:, None]] = np.frombuffer(b"".join(tokens), dtype=np.uint8)
    state = np.repeat(np.arange(len(completes), dtype=np.int32)[:, None], len(tokens), axis=1)
    counts = np.zeros_like(state)
    valid = np.broadcast_to(lengths > 0, state.shape)
    for position, column in enumerate(padded.T):
        inside = position < lengths
        step = completes[state, column]
        valid = valid & ~(inside & (step == FORBIDDEN))
        counts += np.where(inside, step, 0)
        state = np.where(inside, after[state, column], state)
    return np.where(valid, counts, FORBIDDEN).astype(np.int32), np.where(valid, state, 0).astype(np.int32)
