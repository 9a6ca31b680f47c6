"""Keep each frame's vision tokens on disk: a frozen vision tower says the same about the same picture every epoch.

One file a camera, mapped into memory: an array of records, one a frame. A record holds the tokens, a hash of the
picture they were computed from and a checksum of the tokens themselves. The picture's hash refuses an augmented or
changed picture; the checksum makes a half-written record (a crash, two processes at once) count as absent, so
several training processes may share a folder and a resumed run goes on where it was.
"""

import hashlib
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import xxhash
from lerobot.policies.common.vla_utils import resize_with_pad
from numpy.typing import NDArray
from torch import Tensor

from .models.backbone import VLMBackbone

if TYPE_CHECKING:
    from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata

_STORED_AS = {torch.float32: np.dtype(np.float32), torch.bfloat16: np.dtype(np.uint16)}


class VisionTokenCache:
    """Vision tokens of a data set's frames, computed at first sight and read ever after.

    Args:
        folder: Where the files lie; one subfolder for each combination of data set, tower and size.
        dataset_meta: The data set; its frames are numbered by the batch's `index`.
        backbone: Holds the vision tower and connector, which must not change any more.
        image_size: (width, height) that pictures are fitted into, in [pixels].
        dtype: Storage, float32 or bfloat16.
    """

    def __init__(
        self,
        folder: Path,
        dataset_meta: "LeRobotDatasetMetadata",
        backbone: VLMBackbone,
        image_size: tuple[int, int],
        dtype: torch.dtype,
    ):
        self._image_size = image_size
        self._dtype = dtype
        self._num_frames = dataset_meta.total_frames
        self._files: dict[str, np.memmap] = {}
        identity = {
            "data_set": dataset_meta.repo_id,
            "frames": dataset_meta.total_frames,
            "episodes": dataset_meta.total_episodes,
            "image_size": list(image_size),
            "dtype": str(dtype),
            "vision_weights": vision_fingerprint(backbone),
        }
        name = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
        self.folder = Path(folder) / name
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "identity.json").write_text(json.dumps(identity, indent=2) + "\n")

    def tokens(
        self, images: dict[str, Tensor], frame_indices: Tensor, encode: Callable[[Tensor], Tensor]
    ) -> list[Tensor]:
        """Tokens of a batch of frames.

        Args:
            images: Pictures by camera, (b, 3, height, width) in [0, 1].
            frame_indices: Numbers of the frames in the data set, (b,).
            encode: Vision tower and connector: fitted pixels in [-1, 1], (m, 3, height, width) -> (m, n, width).

        Returns:
            For each camera, (b, n, width), in the storage's precision whether computed now or read.

        Raises:
            ValueError: If a picture is not the one whose tokens are kept.
        """
        frames = [int(index) for index in frame_indices.flatten()]
        requests = [(camera, row) for camera in images for row in range(len(frames))]
        hashes = {(camera, row): _hash_picture(images[camera][row]) for camera, row in requests}
        read = {key: self._read(key[0], frames[key[1]], hashes[key]) for key in requests}
        found = {key: tokens for key, tokens in read.items() if tokens is not None}
        absent = [key for key in requests if key not in found]
        if absent:
            width, height = self._image_size
            pictures = torch.cat([resize_with_pad(images[c][r : r + 1], height, width, pad_value=0) for c, r in absent])
            computed = encode(pictures * 2.0 - 1.0).detach().to("cpu", self._dtype)
            for key, tokens in zip(absent, computed, strict=True):
                self._write(key[0], frames[key[1]], hashes[key], tokens)
                found[key] = tokens
        device = frame_indices.device
        return [torch.stack([found[camera, row] for row in range(len(frames))]).to(device) for camera in images]

    def _read(self, camera: str, frame: int, picture_hash: int) -> Tensor | None:
        records = self._records(camera)
        if records is None:
            return None
        record = records[frame]
        if record["picture"] == 0 or record["checksum"] != _checksum(record["tokens"]):
            return None
        if record["picture"] != picture_hash:
            raise ValueError(
                f"frame {frame} of {camera} is not the picture whose vision tokens are kept in {self.folder}: it was "
                "augmented (--dataset.image_transforms.enable), decoded differently, or the data set changed. Remedy: "
                "turn augmentation off, leave --policy.vision_cache out, or delete that folder"
            )
        values = torch.from_numpy(np.array(record["tokens"]))
        return values.view(torch.bfloat16) if self._dtype == torch.bfloat16 else values

    def _write(self, camera: str, frame: int, picture_hash: int, tokens: Tensor) -> None:
        records = self._records(camera, shape=tuple(tokens.shape))
        assert records is not None
        values = (tokens.view(torch.uint16) if self._dtype == torch.bfloat16 else tokens).numpy()
        record = records[frame]
        record["tokens"] = values
        record["checksum"] = _checksum(values)
        # Last, because a record without it counts as absent.
        record["picture"] = picture_hash

    def _records(self, camera: str, shape: tuple[int, ...] | None = None) -> np.memmap | None:
        """The camera's file; made (sparse, all records absent) once the shape of its tokens is known."""
        if camera in self._files:
            return self._files[camera]
        path = self.folder / f"{camera}.tokens"
        shape_path = self.folder / f"{camera}.json"
        if shape_path.exists():
            shape = tuple(json.loads(shape_path.read_text()))
        elif shape is None:
            return None
        record = np.dtype([("picture", "<u8"), ("checksum", "<u4"), ("tokens", _STORED_AS[self._dtype], shape)])
        with path.open("ab") as file:  # creates without ever truncating what another process wrote
            file.truncate(self._num_frames * record.itemsize)
        if not shape_path.exists():
            partial = shape_path.with_suffix(f".{id(self)}.partial")
            partial.write_text(json.dumps(shape))
            partial.replace(shape_path)
        self._files[camera] = np.memmap(path, dtype=record, mode="r+", shape=(self._num_frames,))
        return self._files[camera]


def vision_fingerprint(backbone: VLMBackbone) -> str:
    """Hash of the weights of vision tower and connector."""
    digest = xxhash.xxh3_128()
    for module in (backbone.vision_model, backbone.connector):
        for name, value in sorted(module.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


def _hash_picture(picture: Tensor) -> int:
    """Hash of a picture (3, height, width); never 0, which marks an absent record."""
    return xxhash.xxh3_64_intdigest(picture.detach().cpu().contiguous().view(torch.uint8).numpy()) or 1


def _checksum(tokens: NDArray) -> int:
    return zlib.crc32(np.ascontiguousarray(tokens))
