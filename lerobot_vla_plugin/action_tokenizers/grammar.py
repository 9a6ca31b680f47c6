"""Which action token may follow which, so that a sequence that obeys can always be decoded to a whole chunk."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

FORBIDDEN = -1


@dataclass(frozen=True)
class TokenGrammar:
    """A chunk is `total` units (coefficients, bins or codes); every token completes a known number of them.

    A sequence starts in state 0 with `total` units missing and is complete in state 0 with none missing. States other
    than 0 stand for what is left open between two tokens: the first bytes of a character, or a residual level.

    Attributes:
        counts: Units that a token completes in a state, (states, vocab_size); FORBIDDEN where it may never follow.
        next_states: State after it, (states, vocab_size); any valid state where it is forbidden.
        total: Units of a whole chunk.
    """

    counts: NDArray[np.int32]
    next_states: NDArray[np.int32]
    total: int

    @cached_property
    def allowed(self) -> NDArray[np.bool_]:
        """Tokens after which the chunk can still be completed, (states, total + 1, vocab_size).

        Indexed by the state and by the units that are still missing. Nothing is allowed where nothing is missing.
        """
        states, vocab_size = self.counts.shape
        allowed = np.zeros((states, self.total + 1, vocab_size), dtype=bool)
        completable = np.zeros((states, self.total + 1), dtype=bool)
        completable[0, 0] = True
        for missing in range(1, self.total + 1):
            fits = (self.counts >= 0) & (self.counts <= missing)
            left = np.where(fits, missing - self.counts, 0)
            # A token that completes nothing leads to another state with as much missing, which is known a pass later.
            for _ in range(states):
                allowed[:, missing] = fits & completable[self.next_states, left]
                before, completable[:, missing] = completable[:, missing].copy(), allowed[:, missing].any(axis=1)
                if (completable[:, missing] == before).all():
                    break
        return allowed

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest sequence that completes a chunk.

        Raises:
            ValueError: No sequence completes a chunk, or one may go on for ever with tokens that complete nothing.
        """
        longest = np.full((len(self.counts), self.total + 1), -1, dtype=np.int64)
        longest[0, 0] = 0
        for missing in range(1, self.total + 1):
            left = np.where(self.counts >= 0, missing - self.counts, 0)
            for _ in range(len(self.counts) + 1):
                after = longest[self.next_states, np.maximum(left, 0)]
                reachable = self.allowed[:, missing] & (after >= 0)
                before, longest[:, missing] = longest[:, missing].copy(), np.where(reachable, after + 1, -1).max(axis=1)
                if (longest[:, missing] == before).all():
                    break
            else:
                raise ValueError(
                    f"some of these {self.counts.shape[1]} tokens complete nothing and can repeat for ever"
                )
        if longest[0, self.total] < 0:
            raise ValueError(f"no sequence of these {self.counts.shape[1]} tokens has exactly {self.total} units")
        return int(longest[0, self.total])
