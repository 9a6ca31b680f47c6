"""Pictures out of LeRobot's batch dict, checked and fitted to what a vision tower takes."""

import torch
from lerobot.policies.common.vla_utils import resize_with_pad
from lerobot.utils.constants import OBS_IMAGES
from torch import Tensor

from .config_base import VLAConfig


def read_images(config: VLAConfig, batch: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Pictures by camera, (b, 3, height, width) in [0, 1], and for each whether a sample has it, (b,).

    Raises:
        ValueError: If a camera is absent that was not declared empty, or a picture has another size.
    """
    features = config.image_features
    absent = [key for key in features if key not in batch]
    undeclared = [key for key in absent if key not in config.empty_camera_keys]
    if undeclared or len(absent) == len(features):
        present = [key for key in batch if key.startswith(f"{OBS_IMAGES}.")]
        raise ValueError(
            f"expected the cameras {', '.join(features)}; got {', '.join(present) or 'none'}. Remedy: connect "
            "or rename the missing ones (--rename_map), or train with --policy.empty_cameras"
        )
    images = {key: last_step(batch[key], 4) for key in features if key in batch}
    for key, image in images.items():
        expected, got = tuple(features[key].shape), tuple(image.shape[1:])
        if expected != got and "cameras" not in config.contract_overrides:
            raise ValueError(
                f"{key}: expected pictures of shape {expected}, got {got}; set the camera to the size the policy was "
                """trained on, or resize all the same with --policy.contract_overrides='["cameras"]'"""
            )
    masks = [
        batch[f"{key}_padding_mask"].bool()
        if f"{key}_padding_mask" in batch
        else torch.ones(image.shape[0], dtype=torch.bool, device=image.device)
        for key, image in images.items()
    ]
    return images, masks


def fit_image(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize with padding on the left and top, then [0, 1] -> [-1, 1], as SmolVLA's vision tower expects.

    Args:
        image: (b, 3, height, width) in [0, 1].
        size: (width, height) to fit into, in [pixels].
    """
    width, height = size
    return resize_with_pad(image, height, width, pad_value=0) * 2.0 - 1.0


def jitter_colors(image: Tensor, spread: float) -> Tensor:
    """Change light and colors of each picture as another lamp or camera would.

    Args:
        image: (b, 3, height, width) in [0, 1].
        spread: Contrast and brightness are drawn from 1 - 2 * spread to 1 + 2 * spread, the gain of each channel with
            the deviation `spread`.

    Returns:
        Pictures of that shape, in [0, 1].
    """

    def gain() -> Tensor:
        return 1 + 2 * spread * (torch.rand(image.shape[0], 1, 1, 1, device=image.device) * 2 - 1)

    mean = image.mean(dim=(1, 2, 3), keepdim=True)
    channels = 1 + spread * torch.randn(image.shape[0], 3, 1, 1, device=image.device)
    return (((image - mean) * gain() + mean) * gain() * channels).clamp(0, 1)


def last_step(value: Tensor, ndim: int) -> Tensor:
    """Drop LeRobot's axis of observation steps, (b, steps, ...) -> (b, ...), where it is there."""
    return value[:, -1] if value.ndim > ndim else value
