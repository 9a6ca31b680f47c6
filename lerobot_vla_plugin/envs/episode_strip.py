"""The pictures of an episode side by side, a row a camera, so that one look says what went on."""

from pathlib import Path

import numpy as np

_GAP_PX = 2


def write_strip(frames: Path, target: Path, columns: int = 12) -> None:
    """Write a picture strip.

    Args:
        frames: Folder of an episode's pictures, as `EpisodeFrames` writes them.
        target: The picture to write; its ending decides the format.
        columns: How many moments at most, evenly spaced, the first and the last among them.

    Raises:
        FileNotFoundError: The folder holds no pictures.
    """
    from PIL import Image

    cameras: dict[str, list[Path]] = {}
    for path in sorted(frames.glob("*_*.jpg")):
        cameras.setdefault(path.stem.rpartition("_")[0], []).append(path)
    if not cameras:
        raise FileNotFoundError(f"{frames} holds no pictures of an episode (<camera>_<step>.jpg)")
    rows = [_row([np.asarray(Image.open(path)) for path in _spread(paths, columns)]) for paths in cameras.values()]
    width = max(row.shape[1] for row in rows)
    padded = [np.pad(row, ((0, _GAP_PX), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
    target.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(padded)[:-_GAP_PX]).save(target)


def _spread(paths: list[Path], count: int) -> list[Path]:
    places = np.linspace(0, len(paths) - 1, min(count, len(paths)))
    return [paths[round(place)] for place in places.tolist()]


def _row(pictures: list[np.ndarray]) -> np.ndarray:
    gap = np.full((pictures[0].shape[0], _GAP_PX, 3), 255, dtype=np.uint8)
    parts = [part for picture in pictures for part in (picture, gap)]
    return np.concatenate(parts[:-1], axis=1)
