"""The small transformer that denoises an action chunk while looking at the prefix of the backbone."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .backbone import PrefixCache
from .transformer import (
    ROTARY_MAX_WAVELENGTH,
    CrossAttentionLayer,
    DecoderLayer,
    KeysValues,
    LayerSizes,
    Rotary,
    call_layer,
    rotary_embedding,
)


class ExpertContext(NamedTuple):
    """What every denoising step reads and none changes; computed once a chunk.

    Attributes:
        prefix: For each expert layer, the prefix's keys and values (projected where the layer cross-attends).
        self_rotary: Angles of the action tokens after the prefix.
        cross_rotary: The same, counted from zero (cross-attention layers restart the positions).
        self_mask: (b, 1, chunk, prefix + chunk): all of the prefix, and actions causally.
        cross_mask: (b, 1, 1, prefix).
    """

    prefix: list[KeysValues]
    self_rotary: Rotary
    cross_rotary: Rotary
    self_mask: Tensor
    cross_mask: Tensor

    def repeat(self, times: int) -> "ExpertContext":
        """The context of every sample, so many times one after the other, for as many chunks that look at it."""
        return ExpertContext(
            prefix=[KeysValues(*_repeated(keys_values, times)) for keys_values in self.prefix],
            self_rotary=Rotary(*_repeated(self.self_rotary, times)),
            cross_rotary=self.cross_rotary,  # the same for all samples
            self_mask=self.self_mask.repeat_interleave(times, dim=0),
            cross_mask=self.cross_mask.repeat_interleave(times, dim=0),
        )


def _repeated(tensors: Iterable[Tensor], times: int) -> list[Tensor]:
    return [tensor.repeat_interleave(times, dim=0) for tensor in tensors]


class ActionExpert(nn.Module):
    """Alternating self- and cross-attention layers over the action tokens (SmolVLA, arXiv 2506.01844).

    Args:
        sizes: Geometry of a layer; heads must match the backbone's, whose keys self-attention layers share.
        backbone_layers: For each expert layer, the backbone layer it reads.
        self_attention: For each expert layer, whether it is a joint self-attention layer (else cross-attention).
        init_std: Standard deviation of the initial weights.
        gradient_checkpointing: Recompute layers in the backward pass instead of storing their activations.
        max_wavelength: Of the rotary embedding; the backbone's, with whose keys self-attention layers compare theirs.
    """

    def __init__(
        self,
        sizes: LayerSizes,
        backbone_layers: list[int],
        self_attention: list[bool],
        init_std: float,
        gradient_checkpointing: bool = False,
        max_wavelength: float = ROTARY_MAX_WAVELENGTH,
    ):
        super().__init__()
        self.sizes = sizes
        self.max_wavelength = max_wavelength
        self.backbone_layers = backbone_layers
        self.gradient_checkpointing = gradient_checkpointing
        self.layers = nn.ModuleList(
            DecoderLayer(sizes) if joint else CrossAttentionLayer(sizes, backbone_kv_width=sizes.kv_width)
            for joint in self_attention
        )
        self.norm = nn.RMSNorm(sizes.width, eps=sizes.norm_eps)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=init_std)

    @property
    def num_backbone_layers_read(self) -> int:
        """How many layers of the backbone must be computed."""
        return self.backbone_layers[-1] + 1

    def prepare(self, prefix: PrefixCache, chunk_size: int) -> ExpertContext:
        """Do once what every denoising step of a chunk of `chunk_size` action tokens needs."""
        keys_values = [
            layer.project_prefix(prefix.layers[index])
            if isinstance(layer, CrossAttentionLayer)
            else prefix.layers[index]
            for layer, index in zip(self.layers, self.backbone_layers, strict=True)
        ]
        pad_masks = prefix.pad_masks
        steps = torch.arange(chunk_size, device=pad_masks.device)[None, :]
        causal = (steps.transpose(0, 1) >= steps).expand(pad_masks.shape[0], 1, -1, -1)
        cross_mask = pad_masks[:, None, None, :]
        return ExpertContext(
            prefix=keys_values,
            self_rotary=self._rotary(pad_masks.sum(dim=1, keepdim=True) + steps),
            cross_rotary=self._rotary(steps),
            self_mask=torch.cat([cross_mask.expand(-1, -1, chunk_size, -1), causal], dim=3),
            cross_mask=cross_mask,
        )

    def _rotary(self, positions: Tensor) -> Rotary:
        return rotary_embedding(positions, self.sizes.head_dim, self.max_wavelength)

    def forward(self, x: Tensor, context: ExpertContext) -> Tensor:
        """Action tokens (b, chunk, width) -> features (b, chunk, width)."""
        recompute = self.gradient_checkpointing
        for layer, prefix in zip(self.layers, context.prefix, strict=True):
            if isinstance(layer, CrossAttentionLayer):
                x = call_layer(layer, x, context.cross_rotary, context.cross_mask, prefix, recompute=recompute)
            else:
                x, _ = call_layer(layer, x, context.self_rotary, context.self_mask, prefix, recompute=recompute)
        return self.norm(x)
