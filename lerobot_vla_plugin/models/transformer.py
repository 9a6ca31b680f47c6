"""One pre-norm decoder layer, shared by the backbone's language model and the action expert.

Parameter names are those of transformers' Llama layers, so that SmolLM2 and SmolVLA weights load unchanged. The
layer owns its whole forward pass (rather than lending its projections to a caller) so that FSDP, gradient
checkpointing and PEFT, which all hook a module's call, work on it.

Shapes: b batch, l query tokens, s key tokens, h heads, k key/value heads, d head width.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .cpu_linear import CPULinear


class KeysValues(NamedTuple):
    """Keys (rotary embedding applied) and values of some tokens, each (b, k, s, d)."""

    keys: Tensor
    values: Tensor

    def followed_by(self, later: "KeysValues") -> "KeysValues":
        """Append `later` tokens along the sequence."""
        return KeysValues(torch.cat([self.keys, later.keys], dim=2), torch.cat([self.values, later.values], dim=2))


class Past(Protocol):
    """Earlier tokens of a layer: their `KeysValues`, or a cache of fixed size that holds them."""

    def followed_by(self, later: KeysValues) -> KeysValues:
        """Their keys and values and, after them, those of `later` tokens."""
        ...


class Rotary(NamedTuple):
    """Cosines and sines of the rotary embedding, each (b, 1, l, d / 2), in float32."""

    cos: Tensor
    sin: Tensor


# SmolVLA rotates with this wavelength whatever the language model's own configuration says.
ROTARY_MAX_WAVELENGTH = 10_000.0


def rotary_embedding(positions: Tensor, head_dim: int, max_wavelength: float = ROTARY_MAX_WAVELENGTH) -> Rotary:
    """Angles of the rotary position embedding.

    Args:
        positions: Token positions, shape (b, l).
        head_dim: Width d of one attention head.
        max_wavelength: Base of the geometric series of wavelengths ("rope theta").
    """
    exponents = torch.arange(head_dim // 2, dtype=torch.float32, device=positions.device) * (2.0 / head_dim)
    angles = positions[:, None, :, None].to(torch.float32) / max_wavelength**exponents
    return Rotary(angles.cos(), angles.sin())


def rotate(x: Tensor, rotary: Rotary) -> Tensor:
    """Apply the rotary embedding to x, shape (b, heads, l, d); computed in float32, returned in x's dtype."""
    first, second = x.float().chunk(2, dim=-1)
    return torch.cat([first * rotary.cos - second * rotary.sin, second * rotary.cos + first * rotary.sin], dim=-1).to(
        x.dtype
    )


def grouped_attention(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """Fused attention in which groups of query heads share one key/value head.

    The group is folded into the query length instead of repeating keys and values, so the prefix is never copied.

    Args:
        queries: (b, h, l, d).
        keys: (b, k, s, d), with h a multiple of k.
        values: (b, k, s, d).
        mask: True where a query may look, (b, 1, 1, s) or (b, 1, l, s). Every query must see at least one key.

    Returns:
        Attention output, (b, l, h * d).
    """
    b, h, l, d = queries.shape  # noqa: E741
    k = keys.shape[1]
    groups = h // k
    if mask.shape[2] != 1:
        mask = mask.repeat(1, 1, groups, 1)
    out = F.scaled_dot_product_attention(
        queries.reshape(b, k, groups * l, d), keys, values, attn_mask=mask, dropout_p=0.0
    )
    return out.reshape(b, h, l, d).transpose(1, 2).reshape(b, l, h * d)


@dataclass(frozen=True)
class LayerSizes:
    """Geometry of a decoder layer, and the kind of linear layer it is made of."""

    width: int
    mlp_width: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    norm_eps: float
    attention_bias: bool = False
    mlp_bias: bool = False
    linear: type[nn.Linear] = CPULinear

    @property
    def kv_width(self) -> int:
        """Width of all key (or value) heads together."""
        return self.num_kv_heads * self.head_dim


class Attention(nn.Module):
    """Projections of grouped-query attention.

    Args:
        sizes: Geometry.
        kv_input_width: Width of what keys and values are projected from; the layer's own width by default.
    """

    def __init__(self, sizes: LayerSizes, kv_input_width: int | None = None):
        super().__init__()
        self.head_dim = sizes.head_dim
        kv_input_width = kv_input_width or sizes.width
        query_width = sizes.num_heads * sizes.head_dim
        self.q_proj = sizes.linear(sizes.width, query_width, bias=sizes.attention_bias)
        self.k_proj = sizes.linear(kv_input_width, sizes.kv_width, bias=sizes.attention_bias)
        self.v_proj = sizes.linear(kv_input_width, sizes.kv_width, bias=sizes.attention_bias)
        self.o_proj = sizes.linear(query_width, sizes.width, bias=sizes.attention_bias)

    def heads(self, x: Tensor) -> Tensor:
        """(b, l, heads * d) -> (b, heads, l, d)."""
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)


class GatedMLP(nn.Module):
    """SwiGLU feed-forward block."""

    def __init__(self, sizes: LayerSizes):
        super().__init__()
        self.gate_proj = sizes.linear(sizes.width, sizes.mlp_width, bias=sizes.mlp_bias)
        self.up_proj = sizes.linear(sizes.width, sizes.mlp_width, bias=sizes.mlp_bias)
        self.down_proj = sizes.linear(sizes.mlp_width, sizes.width, bias=sizes.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class DecoderLayer(nn.Module):
    """Pre-norm layer whose tokens look at earlier keys and values and at their own."""

    def __init__(self, sizes: LayerSizes, kv_input_width: int | None = None):
        super().__init__()
        self.self_attn = Attention(sizes, kv_input_width)
        self.mlp = GatedMLP(sizes)
        self.input_layernorm = nn.RMSNorm(sizes.width, eps=sizes.norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(sizes.width, eps=sizes.norm_eps)

    def forward(
        self,
        x: Tensor,
        rotary: Rotary,
        mask: Tensor,
        past: Past | None = None,
        keys_values_only: bool = False,
    ) -> tuple[Tensor, KeysValues]:
        """Run the layer.

        Args:
            x: Tokens, (b, l, width).
            rotary: Angles of the tokens' positions.
            mask: Which keys each token may see, past keys first: (b, 1, 1 or l, s).
            past: Keys and values of earlier tokens.
            keys_values_only: Compute nothing but this layer's keys and values (x is returned as it came); for a
                last layer of which nobody reads more.

        Returns:
            The tokens after the layer and their own keys and values, without the past.
        """
        attention = self.self_attn
        normed = self.input_layernorm(x)
        own = KeysValues(
            rotate(attention.heads(attention.k_proj(normed)), rotary),
            attention.heads(attention.v_proj(normed)),
        )
        if keys_values_only:
            return x, own
        queries = rotate(attention.heads(attention.q_proj(normed)), rotary)
        seen = own if past is None else past.followed_by(own)
        return self._finish(x, grouped_attention(queries, seen.keys, seen.values, mask)), own

    def _finish(self, x: Tensor, attended: Tensor) -> Tensor:
        x = x + self.self_attn.o_proj(attended)
        return x + self.mlp(self.post_attention_layernorm(x))


def call_layer(layer: nn.Module, *args: Any, recompute: bool) -> Any:
    """Call a layer; with `recompute` its activations are computed again in the backward pass instead of being kept."""
    if recompute and layer.training and torch.is_grad_enabled():
        return checkpoint(layer, *args, use_reentrant=False)
    return layer(*args)


class CrossAttentionLayer(DecoderLayer):
    """Layer whose tokens look only at the prefix, through a projection of the backbone's keys and values."""

    def __init__(self, sizes: LayerSizes, backbone_kv_width: int):
        super().__init__(sizes, kv_input_width=backbone_kv_width)

    def project_prefix(self, prefix: KeysValues) -> KeysValues:
        """Project the backbone's keys and values once for a whole chunk; they do not depend on the actions."""
        attention = self.self_attn
        flat_keys, flat_values = (x.transpose(1, 2).flatten(2) for x in prefix)
        return KeysValues(attention.heads(attention.k_proj(flat_keys)), attention.heads(attention.v_proj(flat_values)))

    def forward(self, x: Tensor, rotary: Rotary, mask: Tensor, projected_prefix: KeysValues) -> Tensor:  # type: ignore[override]
        """Run the layer on x, (b, l, width), attending to `projected_prefix` under mask (b, 1, 1, s)."""
        attention = self.self_attn
        queries = rotate(attention.heads(attention.q_proj(self.input_layernorm(x))), rotary)
        return self._finish(x, grouped_attention(queries, projected_prefix.keys, projected_prefix.values, mask))


def project_in_float32(linear: nn.Linear, features: Tensor) -> Tensor:
    """A linear map whose result is read as numbers: in float32 under autocast, too.

    Only where FSDP holds the weights in bfloat16 does it compute in that.
    """
    with torch.autocast(features.device.type, enabled=False):
        return linear(features.to(linear.weight.dtype)).float()
