"""What every action tokenizer offers: normalised action chunks <-> token ids.

Shapes: n chunks, c steps of a chunk (`chunk_size`), j joints (`action_dim`).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from .grammar import TokenGrammar


class MalformedTokensError(ValueError):
    """Token ids that are no action chunk; the message names them. Nothing was decoded, so nothing may be executed."""


class ActionTokenizer(Protocol):
    """Turns normalised action chunks into token ids and back.

    Attributes:
        kind: Name of the scheme, as in `--policy.action_tokenizer`.
        vocab_size: Ids are 0..vocab_size - 1.
    """

    kind: ClassVar[str]

    @property
    def vocab_size(self) -> int: ...

    @classmethod
    def fit(
        cls,
        chunks: NDArray,
        *,
        constant_joints: Sequence[int] = (),
        show_progress: bool = False,
    ) -> Self:
        """Fit to chunks, (n, c, j), normalised so that q01..q99 of each joint is -1..1; members have more options.

        The same chunks give the same tokenizer.

        Args:
            chunks: Normalised action chunks, (n, c, j).
            constant_joints: Joints that are known never to move; any other that does not is an error.
            show_progress: Draw a progress bar.

        Raises:
            ValueError: Too few chunks, values that are not finite, or a joint that never moves.
        """
        ...

    def encode(self, chunks: NDArray) -> list[list[int]]:
        """Token ids of each chunk, (n, c, j).

        Raises:
            ValueError: A value is not finite, or the shape is not what the tokenizer was fitted for.
        """
        ...

    def decode(self, ids: Sequence[Sequence[int]], chunk_size: int, action_dim: int) -> NDArray[np.float64]:
        """Normalised chunks, (n, c, j).

        Raises:
            MalformedTokensError: Some sequence is not a whole chunk of that size; the message names its ids.
        """
        ...

    def grammar(self, chunk_size: int, action_dim: int) -> TokenGrammar:
        """Which ids complete how much of a chunk.

        Raises:
            ValueError: The tokenizer was fitted for another chunk.
        """
        ...

    def save(self, folder: Path) -> None:
        """Write everything needed into a folder: JSON and safetensors, never pickle."""
        ...

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            ValueError: A file is missing, cut short, or holds fields of something else.
        """
        ...
