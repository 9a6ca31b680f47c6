"""Keys and values of a prefix and of the tokens that follow it one by one, in tensors whose shapes never change.

Shapes: b batch, k key/value heads, s prefix and room for the later tokens, d head width.
"""

from typing import NamedTuple, Self

import torch
from torch import Tensor

from .backbone import PrefixCache
from .transformer import KeysValues


class LayerCache(NamedTuple):
    """One layer's keys and values, (b, k, s, d) each, and where the next token's go, (1,)."""

    keys: Tensor
    values: Tensor
    next_index: Tensor

    def followed_by(self, later: KeysValues) -> KeysValues:
        """Write one later token in its place; the whole room is returned, what is not written yet included."""
        self.keys.index_copy_(2, self.next_index, later.keys)
        self.values.index_copy_(2, self.next_index, later.values)
        return KeysValues(self.keys, self.values)


class KVCache(NamedTuple):
    """Every layer's cache, and what tells written tokens from padding and from free room.

    Everything is advanced in place, so that a compiled step sees the same tensors every time, and no shape ever
    changes. The price is that attention runs over free room, too: 600 free places, the most that FAST may need for 50
    steps of 6 joints, slow a token of the built-in model by 4 % at batch 1, by a third at 8 (benchmarks/token_cost.py).
    Samples go in step; their positions differ where their prefixes have different padding.

    Attributes:
        layers: For each layer of the backbone.
        visible: True where a real token is, (b, s).
        next_index: Where the next token goes, (1,).
        next_positions: Its position in each sample, (b, 1).
    """

    layers: list[LayerCache]
    visible: Tensor
    next_index: Tensor
    next_positions: Tensor

    @classmethod
    def after(cls, prefix: PrefixCache, max_tokens: int) -> Self:
        """Take over a prefix, with room for `max_tokens` more."""
        pad_masks = prefix.pad_masks
        next_index = torch.tensor([pad_masks.shape[1]], device=pad_masks.device)
        return cls(
            layers=[
                LayerCache(_with_room(layer.keys, max_tokens, 2), _with_room(layer.values, max_tokens, 2), next_index)
                for layer in prefix.layers
            ],
            visible=_with_room(pad_masks, max_tokens, 1),
            next_index=next_index,
            next_positions=pad_masks.sum(dim=1, keepdim=True),
        )

    def show_next(self) -> None:
        """Let the token that is about to be written be seen, also by itself."""
        self.visible.index_fill_(1, self.next_index, True)

    def advance(self) -> None:
        """Go on to the next token."""
        self.next_index.add_(1)
        self.next_positions.add_(1)


def _with_room(x: Tensor, room: int, dim: int) -> Tensor:
    # Zeros, not uninitialised memory: attention multiplies masked values by a weight of 0, and 0 * NaN is NaN.
    shape = list(x.shape)
    shape[dim] = room
    return torch.cat([x, x.new_zeros(shape)], dim=dim)
