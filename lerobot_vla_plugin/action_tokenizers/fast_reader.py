"""From FAST token ids back to the characters of coefficients, for a whole batch at once."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from .protocol import MalformedTokensError


@dataclass(frozen=True, eq=False)
class TokenReader:
    """Reads sequences of ids as characters.

    Attributes:
        tokens: Bytes of each id, (vocab_size,).
        last_code: Largest character that stands for a coefficient.
    """

    tokens: NDArray[np.object_]
    last_code: int

    @cached_property
    def character_counts(self) -> NDArray[np.int64]:
        """Characters that each id begins, (vocab_size,): its bytes but the continuations 10xxxxxx."""
        return np.array([sum(byte & 0xC0 != 0x80 for byte in token) for token in self.tokens])

    @cached_property
    def _begins_inside(self) -> NDArray[np.bool_]:
        return np.array([token[0] & 0xC0 == 0x80 for token in self.tokens])

    def read(self, ids: Sequence[Sequence[int]], length: int) -> NDArray[np.int32]:
        """Codes of sequences of `length` characters each, (n, length).

        Raises:
            MalformedTokensError: A sequence is something else; the message names its ids.
        """
        try:
            return self._read(ids, length).reshape(-1, length)
        except (ValueError, TypeError, OverflowError) as fault:
            self._name_fault(ids, length)
            raise MalformedTokensError(f"expected sequences of ids, got {ids}: {fault}") from fault

    def _name_fault(self, ids: Sequence[Sequence[int]], length: int) -> None:
        for row, sequence in enumerate(ids):
            try:
                self._read([sequence], length)
            except (ValueError, TypeError, OverflowError) as fault:
                raise MalformedTokensError(
                    f"sequence {row} is no action chunk: {fault}; its ids are {sequence}. Nothing was decoded"
                ) from fault

    def _read(self, ids: Sequence[Sequence[int]], length: int) -> NDArray[np.int32]:
        lengths = np.fromiter(map(len, ids), dtype=np.int64, count=len(ids))
        # An array takes nothing but whole numbers, where numpy would round.
        flat = np.frombuffer(array("q", list(chain.from_iterable(ids))), dtype=np.int64)
        if len(flat) and not 0 <= flat.min() <= flat.max() < len(self.tokens):
            raise ValueError(f"expected ids 0..{len(self.tokens) - 1}")
        ends = np.concatenate([[0], np.cumsum(lengths)])
        found = np.diff(np.concatenate([[0], np.cumsum(self.character_counts[flat])])[ends])
        if (found != length).any():
            raise ValueError(f"expected {length} coefficients, got {found[found != length][0]}")
        # Bytes that are valid UTF-8 fall apart into valid sequences where each begins with a character's first byte.
        if self._begins_inside[flat[ends[:-1]]].any():
            raise ValueError("the first id begins inside a character")
        codes = np.frombuffer(b"".join(self.tokens[flat].tolist()).decode().encode("utf-32-le"), dtype=np.int32)
        if codes.max(initial=0) > self.last_code:
            raise ValueError(f"expected characters up to {self.last_code}, got {codes.max()}")
        return codes
