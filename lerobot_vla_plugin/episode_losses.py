"""Which steps of a batch were recorded, and the mean of the losses that count.

Shapes: b batch, n losses of a sample.
"""

import torch
from lerobot.utils.constants import ACTION
from torch import Tensor


def steps_inside_episode(batch: dict[str, Tensor]) -> Tensor:
    """Which steps of a batch's chunks were recorded, (b, chunk_size); the others pad the end of an episode."""
    if "action_is_pad" in batch:
        return ~batch["action_is_pad"]
    return torch.ones(batch[ACTION].shape[:2], dtype=torch.bool, device=batch[ACTION].device)


def reduce_losses(losses: Tensor, counted: Tensor, reduction: str) -> Tensor:
    """Mean of the losses that count.

    Args:
        losses: (b, n).
        counted: Which of them count, (b, n).
        reduction: "mean" over the batch for a scalar, "none" for one mean a sample, (b,).
    """
    if reduction not in ("mean", "none"):
        raise ValueError(f"reduction={reduction!r}: expected 'mean' or 'none'")
    sums, counts = (losses * counted).sum(dim=1), counted.sum(dim=1)
    if reduction == "mean":
        sums, counts = sums.sum(), counts.sum()
    return sums / counts.clamp_min(1)
