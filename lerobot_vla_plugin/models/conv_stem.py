"""Convolutions in front of the vision tower: from little data they find edges and places, which patches do not."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.smolvlm.modeling_smolvlm import SmolVLMVisionEmbeddings, SmolVLMVisionTransformer

# Key in the vision section of a backbone's configuration; absent where patches are embedded one by one.
STEM_WIDTHS = "conv_stem_widths"
_PATCH = 4  # side of what the first layer takes in, in [pixels]
_GROUPS = 8


class ConvStem(nn.Module):
    """A small residual network that turns a picture into a grid of features, in the place of a patch embedding.

    GroupNorm, because a policy learns from small batches (Diffusion Policy, arXiv 2303.04137, section III-B).

    Args:
        widths: Channels after each stage. The first stage takes patches of 4 x 4 pixels, every later one halves the
            grid.
        out_width: Channels of the features.
    """

    def __init__(self, widths: Sequence[int], out_width: int):
        super().__init__()
        first = widths[0]
        self.patches = nn.Conv2d(3, first, _PATCH, stride=_PATCH)
        self.norm = nn.GroupNorm(_GROUPS, first)
        stages = pairwise(widths)
        self.stages = nn.ModuleList(ResidualStage(before, after, _stride(before, after)) for before, after in stages)
        self.out = nn.Conv2d(widths[-1], out_width, 1)

    @property
    def weight(self) -> Tensor:
        """Of the first layer: its dtype is that of the pictures."""
        return self.patches.weight

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels (b, 3, height, width) -> features (b, out_width, rows, columns)."""
        # Channels last: a training step on a processor takes less time. The weights stay as they are: LeRobot could not
        # save the optimiser's state otherwise.
        x = F.silu(self.norm(self.patches(pixels.contiguous(memory_format=torch.channels_last))))
        for stage in self.stages:
            x = stage(x)
        return self.out(x)


class ResidualStage(nn.Module):
    """Halve the grid, then one residual block (He et al., arXiv 1512.03385, with SiLU)."""

    def __init__(self, in_width: int, out_width: int, stride: int):
        super().__init__()
        self.down = nn.Conv2d(in_width, out_width, 3, stride=stride, padding=1, bias=False)
        self.down_norm = nn.GroupNorm(_GROUPS, out_width)
        self.first = nn.Conv2d(out_width, out_width, 3, padding=1, bias=False)
        self.first_norm = nn.GroupNorm(_GROUPS, out_width)
        self.second = nn.Conv2d(out_width, out_width, 3, padding=1, bias=False)
        self.second_norm = nn.GroupNorm(_GROUPS, out_width)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.down_norm(self.down(x)))
        inner = F.silu(self.first_norm(self.first(x)))
        return F.silu(x + self.second_norm(self.second(inner)))


def stem_stride(widths: Sequence[int]) -> int:
    """How many pixels a side one feature stands for."""
    return _PATCH * math.prod(_stride(before, after) for before, after in pairwise(widths))


def _stride(in_width: int, out_width: int) -> int:
    return 2 if out_width > in_width else 1


def put_stem_before(vision_model: SmolVLMVisionTransformer, widths: Sequence[int]) -> None:
    """Let convolutions embed the picture, and places begin as their coordinates instead of at random.

    Args:
        vision_model: Changed; its patch embedding is replaced.
        widths: As for `ConvStem`.
    """
    embeddings = cast(SmolVLMVisionEmbeddings, vision_model.embeddings)
    table = embeddings.position_embedding.weight
    embeddings.patch_embedding = ConvStem(widths, table.shape[1])
    with torch.no_grad():
        table.copy_(grid_positions(embeddings.num_patches_per_side, table.shape[1]))


def grid_positions(side: int, width: int) -> Tensor:
    """Sines and cosines of the coordinates of a square grid, (side * side, width), row by row.

    Args:
        side: Cells a side.
        width: A multiple of 4: sine and cosine of row and column.
    """
    places = (torch.arange(side) + 0.5) / side * 2 - 1
    # From half a turn over the whole grid to half a turn from cell to cell.
    turns = torch.logspace(-1, math.log2(side) - 1, width // 4, base=2) * torch.pi
    angles = places[:, None] * turns
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)
    rows, columns = waves[:, None].expand(-1, side, -1), waves[None].expand(side, -1, -1)
    return torch.cat([rows, columns], dim=2).flatten(0, 1)
