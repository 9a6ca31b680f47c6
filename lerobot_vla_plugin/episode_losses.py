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


def reduce_losses(losses: Tensor, weights: Tensor, reduction: str) -> Tensor:
    """Mean of the losses that count.

    Args:
        losses: (b, n).
        weights: What each counts, (b, n); 0 or False: nothing.
        reduction: "mean" over the batch for a scalar, weighted; "none" for one mean a sample, (b,), in which a weight
            of less than 1 makes the loss smaller.
    """
    if reduction not in ("mean", "none"):
        raise ValueError(f"reduction={reduction!r}: expected 'mean' or 'none'")
    weighted = losses * weights
    if reduction == "mean":
        return weighted.sum() / weights.sum().clamp_min(torch.finfo(losses.dtype).tiny)
    return weighted.sum(dim=1) / weights.count_nonzero(dim=1).clamp_min(1)
