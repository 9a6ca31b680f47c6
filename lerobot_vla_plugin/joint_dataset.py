"""The joints of a LeRobot data set on disk: where it lies, which features hold them, and their recorded values."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from lerobot.datasets.dataset_metadata import CODEBASE_VERSION
from lerobot.datasets.io_utils import load_info, load_stats
from lerobot.datasets.utils import DATA_DIR, INFO_PATH, DatasetInfo
from lerobot.utils.constants import ACTION, HF_LEROBOT_HOME, HF_LEROBOT_HUB_CACHE, OBS_STATE
from numpy.typing import NDArray

EPISODE_INDEX = "episode_index"
_SUFFIX = ".pos"


@dataclass(frozen=True)
class JointFeature:
    """A feature of a data set whose vectors hold joint positions.

    Attributes:
        key: LeRobot's key, "action" or "observation.state".
        width: Length of its vectors.
        columns: Joint name without ".pos" -> position in the vector; the rest of the vector is something else.
    """

    key: str
    width: int
    columns: Mapping[str, int]


def find_dataset(name: str, root: Path | None = None) -> Path:
    """Folder of a data set on this machine; nothing is downloaded.

    Args:
        name: A folder, or a repo id of a data set that LeRobot recorded or downloaded.
        root: The folder, as in LeRobot's `--dataset.root`; `name` says nothing then.

    Raises:
        FileNotFoundError: There is no data set; the message says where was looked.
    """
    candidates = [root] if root else [Path(name), HF_LEROBOT_HOME / name, *_downloaded(name)]
    for folder in candidates:
        if (folder / INFO_PATH).is_file():
            return folder
    raise FileNotFoundError(
        f"no data set {name}: {INFO_PATH} is missing in {' and in '.join(map(str, candidates))}. Name its folder; one "
        f"on the hub comes into a folder with: hf download --repo-type=dataset {name} --local-dir=FOLDER"
    )


def _downloaded(name: str) -> list[Path]:
    """LeRobot's snapshot of a data set on the hub, if this machine has one."""
    where = {"repo_type": "dataset", "revision": CODEBASE_VERSION, "cache_dir": HF_LEROBOT_HUB_CACHE}
    try:
        return [Path(snapshot_download(name, **where, local_files_only=True))]
    except (LocalEntryNotFoundError, HFValidationError):
        return []


def read_info(root: Path) -> DatasetInfo:
    """A data set's `meta/info.json`.

    Args:
        root: The data set's folder.

    Raises:
        ValueError: The data set is of another format than LeRobot's v3.
    """
    info = load_info(root)
    if not info.codebase_version.startswith("v3."):
        raise ValueError(
            f"{root} has format {info.codebase_version}, expected v3. Convert it with: "
            f"python -m lerobot.scripts.convert_dataset_v21_to_v30 --repo-id=... --root={root}"
        )
    return info


def joint_features(info: DatasetInfo) -> list[JointFeature]:
    """Features of a data set that hold joint positions of the arm, and where in their vectors.

    Args:
        info: The data set's metadata.

    Raises:
        ValueError: There is none, or one is not a vector of floats with a name for each entry.
    """
    features = [_joint_feature(key, info.features[key]) for key in (ACTION, OBS_STATE) if key in info.features]
    if not any(feature.columns for feature in features):
        raise ValueError(
            f"the data set has no joint positions: neither {ACTION} nor {OBS_STATE} has names that end with "
            f"{_SUFFIX}; its features are {sorted(info.features)}"
        )
    return [feature for feature in features if feature.columns]


def _joint_feature(key: str, feature: dict) -> JointFeature:
    names, shape = feature.get("names"), tuple(feature["shape"])
    if not isinstance(names, list) or shape != (len(names),) or feature["dtype"] not in ("float32", "float64"):
        raise ValueError(
            f"{key} must be a vector of floats with a name for each entry, got dtype {feature['dtype']}, "
            f"shape {shape}, names {names}. Data sets of before June 2025 are like that"
        )
    columns = {name.removesuffix(_SUFFIX): i for i, name in enumerate(names) if name.endswith(_SUFFIX)}
    return JointFeature(key, len(names), columns)


def data_files(root: Path) -> list[Path]:
    """Parquet files with a data set's frames, in LeRobot's order.

    Args:
        root: The data set's folder.

    Raises:
        FileNotFoundError: There is none.
    """
    files = sorted((root / DATA_DIR).glob("*/*.parquet"))
    if not files:
        raise FileNotFoundError(f"{root / DATA_DIR} holds no parquet file; is the data set complete?")
    return files


def read_vectors(root: Path, features: Iterable[JointFeature]) -> dict[str, NDArray]:
    """Recorded vectors of all frames; pictures stay on disk.

    Args:
        root: The data set's folder.
        features: Features to read.

    Returns:
        Key -> vectors in the order of `data_files`, shape (frames, width), in the data set's unit and precision.

    Raises:
        FileNotFoundError: There are no frames.
        ValueError: A file disagrees with the metadata, or a value is not finite.
    """
    features = list(features)
    parts: dict[str, list[NDArray]] = {feature.key: [] for feature in features}
    for path in data_files(root):
        table = pq.read_table(path, columns=list(parts))
        for feature in features:
            parts[feature.key].append(to_vectors(table[feature.key], feature, path))
    return {key: np.concatenate(blocks) for key, blocks in parts.items()}


def read_episode_index(root: Path) -> NDArray[np.int64]:
    """Episode of every frame, in the order of `data_files`, shape (frames,).

    Args:
        root: The data set's folder.

    Raises:
        FileNotFoundError: There are no frames.
        ValueError: An episode is no integer.
    """
    columns = [EPISODE_INDEX]
    return np.concatenate(
        [integer_column(pq.read_table(path, columns=columns), EPISODE_INDEX, path) for path in data_files(root)]
    )


def integer_column(table: pa.Table, name: str, path: Path) -> NDArray[np.int64]:
    """A column of whole numbers of one parquet file, shape (frames,).

    Args:
        table: What was read.
        name: The column.
        path: The file, for messages.

    Raises:
        ValueError: It is of another type, or a value is missing.
    """
    column = table[name]
    if not pa.types.is_integer(column.type) or column.null_count:
        raise ValueError(
            f"{path}: {name} must be an integer in every frame, got {column.type} with {column.null_count} missing"
        )
    return column.to_numpy().astype(np.int64)


def to_vectors(column: pa.ChunkedArray, feature: JointFeature, path: Path) -> NDArray:
    """Recorded vectors of one parquet file.

    Args:
        column: The feature's column.
        feature: The feature.
        path: The file, for messages.

    Returns:
        Shape (frames, width), in the recorded precision.

    Raises:
        ValueError: The column holds something else than floats, some frame has another number of them, or one is not
            finite.
    """
    number = getattr(column.type, "value_type", column.type)  # LeRobot stores vectors of length 1 as plain numbers.
    if not pa.types.is_floating(number):
        raise ValueError(f"{path}: {feature.key} must hold floats, got {column.type}")
    values = column.combine_chunks()
    flat = values if pa.types.is_floating(values.type) else values.flatten()
    if not len(flat) == len(values) * feature.width > 0 or flat.null_count:
        raise ValueError(f"{path}: {feature.key} must hold {feature.width} numbers in every frame")
    vectors = flat.to_numpy(zero_copy_only=False).reshape(-1, feature.width)
    broken = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(broken):
        raise ValueError(f"{path}: {feature.key} is not finite in {len(broken)} frames, first in row {broken[0]}")
    return vectors


def foreign_statistics(root: Path, vectors: Mapping[str, NDArray]) -> list[str]:
    """Features whose statistics in `meta/stats.json` are not those of their frames, as LeRobot's relative actions.

    Args:
        root: The data set's folder.
        vectors: Key -> recorded vectors, shape (frames, width).
    """
    stats = load_stats(root) or {}
    extremes = {key: (values.min(axis=0), values.max(axis=0)) for key, values in vectors.items() if key in stats}
    return [
        key
        for key, (low, high) in extremes.items()
        if not (np.allclose(stats[key]["min"], low) and np.allclose(stats[key]["max"], high))
    ]
