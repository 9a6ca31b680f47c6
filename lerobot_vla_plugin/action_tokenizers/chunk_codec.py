"""Action chunks in robot units <-> token ids: an action tokenizer, its scaling, and what both were fitted on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .chunk_scaling import ChunkScaling
from .grammar import TokenGrammar
from .kinds import load_action_tokenizer, tokenizer_class
from .protocol import ActionTokenizer
from .tokenizer_files import read_fields, write_fields

CODEC_FILE = "codec.json"
_KIND, _VERSION = "chunk_codec", 1
_ARRAYS = ("low", "high", "span_low", "span_high")
_NAMES = ("joint_names", "relative_joints")
_FIELDS = {"chunk_size": int, **dict.fromkeys((*_NAMES, *_ARRAYS), list)}


@dataclass(frozen=True, eq=False)
class ChunkCodec:
    """Encodes recorded chunks of one arm as ids, and decodes ids to actions that the arm has been seen to do.

    Attributes:
        tokenizer: Turns normalised chunks into ids.
        scaling: Turns robot units into normalised ones.
        chunk_size: Steps of a chunk.

    Raises:
        ValueError: A chunk has no steps.
    """

    tokenizer: ActionTokenizer
    scaling: ChunkScaling
    chunk_size: int

    def __post_init__(self) -> None:
        if self.chunk_size < 1:
            raise ValueError(f"chunk_size must be at least 1, got {self.chunk_size}")

    @classmethod
    def fit(
        cls,
        actions: NDArray,
        states: NDArray,
        joint_names: Sequence[str],
        kind: str = "fast",
        *,
        relative: bool = False,
        equal_ranges: bool = False,
        show_progress: bool = False,
        **options: Any,
    ) -> Self:
        """Fit scaling and tokenizer to recorded chunks.

        Args:
            actions: Chunks, (n, c, j), in robot units.
            states: State at the first step of each, (n, j).
            joint_names: Joints of the last axis; ".pos" at their end says nothing.
            kind: Kind of tokenizer, one of `TOKENIZER_KINDS`.
            relative: Encode all joints but grippers as their distance from the present state.
            equal_ranges: Scale all joints alike, so that a robot unit counts as much in each.
            show_progress: Draw a progress bar where fitting takes long.
            options: Further options of the tokenizer's `fit`.

        Raises:
            ValueError: Too few chunks, a value that is not finite, no joint that moves, a relative one that keeps
                its distance from the state, or an unknown kind.
        """
        scaling = ChunkScaling.fit(actions, states, joint_names, relative=relative, equal_ranges=equal_ranges)
        tokenizer = tokenizer_class(kind).fit(
            scaling.normalize(actions, states),
            constant_joints=scaling.constant_joints,
            show_progress=show_progress,
            **options,
        )
        return cls(tokenizer, scaling, np.shape(actions)[1])

    @classmethod
    def around(
        cls,
        tokenizer: ActionTokenizer,
        actions: NDArray,
        states: NDArray,
        joint_names: Sequence[str],
        *,
        relative: bool = False,
        equal_ranges: bool = False,
    ) -> Self:
        """Put a scaling around a tokenizer that was fitted elsewhere, e.g. a published FAST tokenizer.

        Args:
            tokenizer: The tokenizer.
            actions: Recorded chunks, (n, c, j), in robot units.
            states: State at the first step of each, (n, j).
            joint_names: Joints of the last axis; ".pos" at their end says nothing.
            relative: Encode all joints but grippers as their distance from the present state.
            equal_ranges: Scale all joints alike, so that a robot unit counts as much in each.

        Raises:
            ValueError: A value is not finite, no joint moves, or a relative one keeps its distance from the state.
        """
        scaling = ChunkScaling.fit(actions, states, joint_names, relative=relative, equal_ranges=equal_ranges)
        return cls(tokenizer, scaling, np.shape(actions)[1])

    def with_span(self, low: NDArray, high: NDArray) -> Self:
        """The same, for an arm that was seen to go further than in the chunks.

        Only the clamp of what is decoded moves; neither the scales nor the ids learn of values that were not fitted to.

        Args:
            low: Smallest action, (j,), in robot units.
            high: Largest action, (j,).

        Raises:
            ValueError: Not a finite number for each joint, `low` lies above `high`, or a joint that never moved in the
                chunks does.
        """
        return replace(self, scaling=self.scaling.with_span(low, high))

    @property
    def joint_names(self) -> tuple[str, ...]:
        """Joints of the last axis, without LeRobot's ".pos"."""
        return self.scaling.joint_names

    @property
    def action_dim(self) -> int:
        """Joints of a step."""
        return len(self.scaling.joint_names)

    @property
    def vocab_size(self) -> int:
        """Ids are 0..vocab_size - 1."""
        return self.tokenizer.vocab_size

    @cached_property
    def grammar(self) -> TokenGrammar:
        """Which ids complete how much of a chunk."""
        return self.tokenizer.grammar(self.chunk_size, self.action_dim)

    def encode(self, actions: NDArray, states: NDArray) -> list[list[int]]:
        """Token ids of each chunk.

        Args:
            actions: Chunks, (n, c, j), in robot units.
            states: State at the first step of each, (n, j).

        Raises:
            ValueError: The shapes do not fit, or a value is not finite.
        """
        if np.ndim(actions) == 3 and np.shape(actions)[1] != self.chunk_size:
            raise ValueError(f"expected chunks of {self.chunk_size} steps, got {np.shape(actions)[1]}")
        return self.tokenizer.encode(self.scaling.normalize(actions, states))

    def decode(self, ids: Sequence[Sequence[int]], states: NDArray) -> NDArray[np.float64]:
        """Chunks in robot units, (n, c, j), inside the span of the data.

        Args:
            ids: Token ids of each chunk.
            states: State at the first step of each, (n, j).

        Raises:
            MalformedTokensError: Some sequence is not a whole chunk; the message names its ids.
            ValueError: The shapes do not fit, or a state is not finite.
        """
        return self.scaling.unnormalize(self.tokenizer.decode(ids, self.chunk_size, self.action_dim), states)

    def check_fits(
        self, joint_names: Sequence[str], chunk_size: int, action_low: ArrayLike, action_high: ArrayLike
    ) -> None:
        """Refuse data that this was not fitted for; warn of what will be clamped.

        Args:
            joint_names: Joints of the data, in their order; ".pos" at their end says nothing.
            chunk_size: Steps of a chunk.
            action_low: Smallest action of the data, (j,), in robot units.
            action_high: Largest action, (j,).

        Raises:
            ValueError: The joints or the chunk are others, or a joint leaves the span by more than a tenth of it.
        """
        remedy = "fit one on this data set with `lerobot-vla tokenizer fit`"
        self.scaling.check_joints(joint_names, remedy)
        if chunk_size != self.chunk_size:
            raise ValueError(
                f"the action tokenizer was fitted for chunk_size {self.chunk_size}, not {chunk_size}; set "
                f"chunk_size={self.chunk_size}, or {remedy} --chunk-size={chunk_size}"
            )
        self.scaling.check_span(action_low, action_high, remedy)

    def save(self, folder: Path) -> None:
        """Write scaling and tokenizer into a folder."""
        arrays = {name: getattr(self.scaling, name).tolist() for name in _ARRAYS}
        names = {name: list(getattr(self.scaling, name)) for name in _NAMES}
        write_fields(folder, _KIND, _VERSION, {"chunk_size": self.chunk_size, **names, **arrays}, CODEC_FILE)
        self.tokenizer.save(folder)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            ValueError: A file is missing, cut short, or holds fields of something else.
        """
        fields = read_fields(folder, _KIND, _VERSION, _FIELDS, CODEC_FILE)
        chunk_size = fields.pop("chunk_size")
        tokenizer = load_action_tokenizer(folder)  # outside of the try: its errors name files of its own
        try:
            arguments: dict[str, Any] = {name: tuple(fields[name]) for name in _NAMES}
            arguments |= {name: np.array(fields[name], dtype=np.float64) for name in _ARRAYS}
            codec = cls(tokenizer, ChunkScaling(**arguments), chunk_size)
            codec.grammar  # noqa: B018 - refuses a tokenizer of another chunk
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"{Path(folder) / CODEC_FILE}: {error}") from error
        return codec
