"""Write a copy of a LeRobot data set with other joint values: frames and statistics anew, all else as it was."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from lerobot.datasets.compute_stats import aggregate_stats, compute_episode_stats
from lerobot.datasets.utils import EPISODES_DIR, STATS_PATH, serialize_dict
from lerobot.utils.io_utils import load_json, write_json
from numpy.typing import NDArray

from .arms.annotation import ANNOTATION_FILE, ArmAnnotation, write_annotation
from .joint_dataset import data_files, read_episode_index, read_info
from .new_folder import new_folder
from .progress import StepBar

Statistics = dict[str, dict[str, NDArray]]

_STATS_COLUMN = "stats/"
_MEGABYTE = 1_000_000


def write_retargeted(source: Path, target: Path, vectors: Mapping[str, NDArray], annotation: ArmAnnotation) -> None:
    """Write the data set; `target` appears when it is complete, and not at all after a failure or Ctrl-C.

    LeRobot's own data-set tools decode and store every picture anew and leave the statistics of the episodes as they
    were. Here pictures, videos and unknown files are copied, and what is computed comes from LeRobot's functions.

    Args:
        source: Folder of the data set to read.
        target: Folder to write.
        vectors: Key -> new vectors of all frames, in the order of `data_files`, shape (frames, width).
        annotation: The new data set's arm.

    Raises:
        FileExistsError: `target` exists.
        ValueError: `target` lies inside `source`, or the data set holds what cannot be carried over.
    """
    if target.resolve().is_relative_to(source.resolve()):
        raise ValueError(f"{target} lies inside the data set {source}; name a folder beside it")
    episode_stats = _episode_statistics(source, vectors)
    files = _files(source)
    total_bytes, done_bytes = sum(path.stat().st_size for path in files), 0
    with new_folder(target) as draft, StepBar("retarget", total_bytes / _MEGABYTE, "MB") as bar:
        rows = _rows_of_files(source)
        for path in files:
            relative = path.relative_to(source)
            copy = draft / relative
            copy.parent.mkdir(parents=True, exist_ok=True)
            if path in rows:
                _copy_frames(path, copy, {key: values[rows[path]] for key, values in vectors.items()})
            elif relative.is_relative_to(EPISODES_DIR) and path.suffix == ".parquet":
                _copy_episodes(path, copy, episode_stats)
            elif relative == Path(STATS_PATH):
                _copy_statistics(path, copy, episode_stats)
            elif relative != ANNOTATION_FILE:
                shutil.copyfile(path, copy)
            done_bytes += path.stat().st_size
            bar.advance_to(done_bytes / _MEGABYTE)
        write_annotation(draft, annotation)


def _files(root: Path) -> list[Path]:
    # Not rglob: it would pass by a folder of videos that is a link to another disk.
    walk = os.walk(root, followlinks=True)
    paths = [Path(folder, name) for folder, _, names in walk for name in names]
    # What .cache records says that the files are the hub's: LeRobot would fetch the originals again.
    return sorted(path for path in paths if not path.relative_to(root).is_relative_to(".cache"))


def _rows_of_files(root: Path) -> dict[Path, slice]:
    rows, start = {}, 0
    for path in data_files(root):
        end = start + pq.read_metadata(path).num_rows
        rows[path] = slice(start, end)
        start = end
    return rows


def _episode_statistics(root: Path, vectors: Mapping[str, NDArray]) -> dict[int, Statistics]:
    """Statistics of each episode, as LeRobot computes them when it records."""
    episodes = read_episode_index(root)
    features = read_info(root).features
    return {
        int(episode): compute_episode_stats({key: v[episodes == episode] for key, v in vectors.items()}, features)
        for episode in np.unique(episodes)
    }


def _copy_frames(path: Path, copy: Path, vectors: Mapping[str, NDArray]) -> None:
    # Row group by row group: LeRobot writes one an episode, and pictures of a whole file may not fit into memory.
    start = 0
    with pq.ParquetFile(path) as file, _parquet_writer(copy, file.schema_arrow) as writer:
        for index in range(file.num_row_groups):
            table = file.read_row_group(index)
            rows = slice(start, start + table.num_rows)
            writer.write_table(_with_columns(table, {key: list(values[rows]) for key, values in vectors.items()}))
            start += table.num_rows


def _copy_episodes(path: Path, copy: Path, episode_stats: Mapping[int, Statistics]) -> None:
    table = pq.read_table(path)
    episodes = table["episode_index"].to_pylist()
    keys = next(iter(episode_stats.values()))
    columns = {}
    for column in table.column_names:
        key, _, name = column.removeprefix(_STATS_COLUMN).rpartition("/")
        if column.startswith(_STATS_COLUMN) and key in keys:
            if name not in keys[key]:
                raise ValueError(f"{path}: {column} is no statistic that this LeRobot computes ({sorted(keys[key])})")
            columns[column] = [episode_stats[episode][key][name] for episode in episodes]
    with _parquet_writer(copy, table.schema) as writer:
        writer.write_table(_with_columns(table, columns))


def _copy_statistics(path: Path, copy: Path, episode_stats: Mapping[int, Statistics]) -> None:
    joint_stats = aggregate_stats(list(episode_stats.values()))
    write_json({**load_json(path), **{key: serialize_dict({**stats}) for key, stats in joint_stats.items()}}, copy)


def _with_columns(table: pa.Table, columns: Mapping[str, list[NDArray]]) -> pa.Table:
    for name, rows in columns.items():
        index = table.schema.get_field_index(name)
        field = table.schema.field(index)
        # LeRobot stores vectors of length 1 as plain numbers.
        values = rows if pa.types.is_nested(field.type) else [row.item() for row in rows]
        table = table.set_column(index, field, pa.array(values, type=field.type))
    return table


def _parquet_writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    # LeRobot's own settings.
    return pq.ParquetWriter(path, schema, compression="snappy", use_dictionary=True)
