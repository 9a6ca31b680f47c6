"""Between the batch and the action tokenizer: recorded chunks -> padded ids to learn from, decoded ids -> actions.

Shapes: b batch, c steps of a chunk, j joints, n action tokens.
"""

from array import array
from typing import NamedTuple

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor, nn

from .action_tokenizers import BinTokenizer
from .action_tokenizers.chunk_codec import ChunkCodec
from .models.token_decoding import DecodingGrammar, Draft


class TokenBatch(NamedTuple):
    """Action tokens of a batch.

    Attributes:
        ids: (b, n), 0 behind the end of a sequence.
        masks: True for real tokens, (b, n).
        weights: What each prediction counts in the loss, the end marker last, (b, n + 1).
    """

    ids: Tensor
    masks: Tensor
    weights: Tensor


class ActionTokens(nn.Module):
    """A codec, with what the model needs of it on the model's device. Nothing here learns or is among the weights.

    Args:
        codec: Actions in robot units <-> ids.
    """

    span_low: Tensor
    span_high: Tensor

    def __init__(self, codec: ChunkCodec):
        super().__init__()
        self.codec = codec
        self._remembered: dict[bytes, array[int]] = {}
        self._remembered_bytes = 0
        grammar = codec.grammar
        self.grammar = DecodingGrammar(grammar.allowed, grammar.counts, grammar.next_states)
        for name in ("span_low", "span_high"):
            span = torch.as_tensor(getattr(codec.scaling, name), dtype=torch.float32)
            self.register_buffer(name, span, persistent=False)

    def scale_states(self, states: Tensor) -> Tensor:
        """Joint positions (b, j) -> about -1..1, by the span of the actions: the same joints in the same unit.

        A joint that never moved is divided by 1: one tick beside its place stays small.

        Raises:
            ValueError: A position is not finite; a chunk decoded from it would look as good as any other.
        """
        if not torch.isfinite(states).all():
            raise ValueError(f"observation.state is not finite: {states.tolist()}; nothing is sent to the arm")
        return (states - self._middle) / self._half_span

    def unscale_actions(self, actions: Tensor) -> Tensor:
        """The inverse of `scale_states`, for joints in the last axis: about -1..1 -> robot units."""
        return actions * self._half_span + self._middle

    @property
    def _middle(self) -> Tensor:
        return (self.span_low + self.span_high) / 2

    @property
    def _half_span(self) -> Tensor:
        half = (self.span_high - self.span_low) / 2
        return torch.where(half > _SMALLEST_HALF_SPAN, half, torch.ones_like(half))

    def draft(self, actions: Tensor, states: Tensor) -> Draft:
        """Tokens of chunks that were guessed, laid out for a model that goes by them.

        Args:
            actions: Chunks in robot units, (b, c, j).
            states: State at the first step of each, (b, j).

        Raises:
            ValueError: An action is not finite.
        """
        sequences = self.codec.encode(_array(actions), _array(states))
        ends = 1 + max(len(ids) for ids in sequences)
        padded = [[*ids, *[self.grammar.end_marker] * (ends - len(ids))] for ids in sequences]
        return self.grammar.lay_out(torch.tensor(padded, device=actions.device))

    def encode(self, actions: Tensor, states: Tensor, inside: Tensor) -> TokenBatch:
        """Tokens of recorded chunks.

        Steps behind the end of an episode are taken as holding still at its last action, but do not teach: a token of
        such a step counts nothing, and where every token is of all steps, each counts as much as was recorded of them.

        Args:
            actions: Chunks in robot units, (b, c, j).
            states: State at the first step of each, (b, j).
            inside: Which steps were recorded, (b, c).
        """
        sequences = self._encode_once(_array(_hold_last(actions, inside)), _array(states))
        lengths = torch.tensor([len(ids) for ids in sequences], device=actions.device)
        longest = int(lengths.max())
        padded = [[*ids, *[0] * (longest - len(ids))] for ids in sequences]
        masks = torch.arange(longest, device=actions.device) < lengths[:, None]
        return TokenBatch(torch.tensor(padded, device=actions.device), masks, self._weights(inside, longest))

    def _weights(self, inside: Tensor, num_tokens: int) -> Tensor:
        if isinstance(self.codec.tokenizer, BinTokenizer):  # one token for each joint of each step, step by step
            of_steps = inside.repeat_interleave(self.codec.action_dim, dim=1)
            return torch.cat([of_steps, torch.ones_like(inside[:, :1])], dim=1).float()
        return inside.float().mean(dim=1, keepdim=True).expand(-1, num_tokens + 1)

    def _encode_once(self, actions: NDArray, states: NDArray) -> list[list[int]]:
        """Ids of chunks (b, c, j); those of a chunk that came by in an earlier epoch are remembered."""
        keys = [xxhash.xxh3_128_digest(a.tobytes() + s.tobytes()) for a, s in zip(actions, states, strict=True)]
        new = [place for place, key in enumerate(keys) if key not in self._remembered]
        encoded = self.codec.encode(actions[new], states[new]) if new else []
        fresh = {keys[place]: array("i", ids) for place, ids in zip(new, encoded, strict=True)}
        size = sum(_ENTRY_BYTES + ids.itemsize * len(ids) for ids in fresh.values())
        if self._remembered_bytes + size <= _MOST_REMEMBERED_BYTES:
            self._remembered |= fresh
            self._remembered_bytes += size
        return [(fresh.get(key) or self._remembered[key]).tolist() for key in keys]

    def decode(self, tokens: Tensor, lengths: Tensor, states: Tensor) -> Tensor:
        """Chunks in robot units, (b, c, j), inside the span that the codec was fitted on.

        Args:
            tokens: Ids, (b, n).
            lengths: How many of them each sample has, (b,).
            states: State at the first step of each, (b, j).

        Raises:
            MalformedTokensError: Some sequence is not a whole chunk; the message names its ids.
        """
        sequences = [ids[:length] for ids, length in zip(tokens.tolist(), lengths.tolist(), strict=True)]
        actions = self.codec.decode(sequences, _array(states))
        return torch.from_numpy(actions).to(states.device, torch.float32)


# How much the ids of chunks that are remembered may take: a million chunks of 25 tokens. Rate-distortion encoding takes
# milliseconds for a chunk.
_MOST_REMEMBERED_BYTES = 300 * 2**20
_ENTRY_BYTES = 200  # key, array and their places in the dict
# Far below what one encoder tick does to any joint, far above rounding.
_SMALLEST_HALF_SPAN = 1e-3


def _array(values: Tensor) -> NDArray[np.float64]:
    return values.detach().to("cpu", torch.float64).numpy()


def _hold_last(actions: Tensor, inside: Tensor) -> Tensor:
    """Repeat the last recorded step of each chunk in the place of those behind it."""
    last = inside.sum(dim=1, keepdim=True).clamp_min(1) - 1
    steps = torch.arange(actions.shape[1], device=actions.device).expand(len(actions), -1)
    return actions.gather(1, torch.minimum(steps, last)[:, :, None].expand_as(actions))
