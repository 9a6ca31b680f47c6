"""JPEG as the cameras send it; decoding an encoded picture gives the pixels that LeRobot's ZMQ camera reads."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_QUALITY = 95


def encode_jpeg(image: NDArray[np.uint8]) -> bytes:
    """Compress a picture.

    Args:
        image: RGB picture, shape (height, width, 3).

    Raises:
        RuntimeError: OpenCV could not.
    """
    import cv2

    # OpenCV takes the channels for BGR at both ends and LeRobot swaps them at neither: RGB stays RGB.
    options: Sequence[int] = [
        cv2.IMWRITE_JPEG_QUALITY,
        _QUALITY,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,  # else a cube of a few pixels loses its color
    ]
    done, data = cv2.imencode(".jpg", image, options)
    if not done:
        raise RuntimeError(f"OpenCV could not encode a picture of shape {image.shape}")
    return data.tobytes()


def through_jpeg(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What a reader of the cameras sees of a picture.

    Args:
        image: RGB picture, shape (height, width, 3).

    Returns:
        The picture of that shape, with JPEG's losses.

    Raises:
        RuntimeError: OpenCV could not encode it.
    """
    import cv2

    decoded = cv2.imdecode(np.frombuffer(encode_jpeg(image), np.uint8), cv2.IMREAD_COLOR)
    return np.asarray(decoded, dtype=np.uint8)
