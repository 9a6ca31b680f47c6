"""The comparison of action tokenizers as text, CSV and JSON."""

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from .text_table import align
from .tokenizer_compare import Fold, RowResult
from .tokenizer_units import ErrorUnit

ALL_JOINTS = "all"
_COLUMNS = ("error_mean", "error_p99", "error_max")


@dataclass(frozen=True)
class Comparison:
    """Everything the table shows.

    Attributes:
        source: The recording.
        joint_names: Joints, (j).
        chunk_size: Steps of a chunk.
        stride: Frames from one chunk that was tested on to the next.
        folds: Episodes that were fitted to and tested on.
        units: Units of the errors, the data's own first.
        results: One tokenizer each.
    """

    source: Path
    joint_names: tuple[str, ...]
    chunk_size: int
    stride: int
    folds: Sequence[Fold]
    units: Sequence[ErrorUnit]
    results: Sequence[RowResult]


def format_table(comparison: Comparison) -> str:
    """The comparison as lines for a terminal: one table over all joints, one for each unit joint by joint."""
    c = comparison
    header = (
        f"Chunks of {c.chunk_size} steps x {len(c.joint_names)} joints of {c.source}. Every tokenizer was fitted\n"
        f"{len(c.folds)} times, each time without the episodes that it was tested on; in brackets the lowest and the "
        "highest result."
    )
    tables = [_overall_table(c), *(_joint_table(c, unit) for unit in c.units)]
    return "\n\n".join([header, *tables])


def _overall_table(comparison: Comparison) -> str:
    rows = [("", "tokens per chunk", "p99", f"mean error [{comparison.units[0].name}]", "p99", "max")]
    for result in comparison.results:
        tokens, errors = result.tokens, result.errors
        rows.append(
            (
                result.row.label,
                f"{tokens.mean():.1f} ({tokens.min():.1f}-{tokens.max():.1f})",
                f"{result.mean('tokens_p99'):.0f}",
                f"{errors.mean():.3f} ({errors.min():.3f}-{errors.max():.3f})",
                f"{result.mean('overall_p99'):.2f}",
                f"{result.error_max.max():.2f}",
            )
        )
    return "\n".join(align(rows))


def _joint_table(comparison: Comparison, unit: ErrorUnit) -> str:
    rows = [(f"error mean/p99/max [{unit.name}]", *comparison.joint_names)]
    for result in comparison.results:
        columns = zip(*_joint_errors(result, unit), strict=True)
        rows.append((result.row.label, *("/".join(f"{value:.{unit.digits}f}" for value in joint) for joint in columns)))
    return "\n".join(align(rows))


def _joint_errors(result: RowResult, unit: ErrorUnit) -> tuple[NDArray, NDArray, NDArray]:
    """Mean, 99th percentile and maximum of each joint, (j,)."""
    values = result.mean("error_mean"), result.mean("error_p99"), result.error_max
    mean, p99, largest = (value * unit.per_robot_unit for value in values)
    return mean, p99, largest


def as_dict(comparison: Comparison) -> dict[str, Any]:
    """The comparison as JSON knows it."""
    return {
        "source": str(comparison.source),
        "chunk_size": comparison.chunk_size,
        "stride": comparison.stride,
        "folds": [{"fit": fold.fit_episodes, "test": fold.test_episodes} for fold in comparison.folds],
        "tokenizers": [_result_as_dict(comparison, result) for result in comparison.results],
    }


def _result_as_dict(comparison: Comparison, result: RowResult) -> dict[str, Any]:
    tokens, errors = result.tokens, result.errors
    return {
        "tokenizer": result.row.label,
        "kind": result.row.kind,
        "options": dict(result.row.options),
        "vocab_size": float(result.mean("vocab_size")),
        "tokens_mean": float(tokens.mean()),
        "tokens_mean_by_fold": tokens.tolist(),
        "tokens_p99": float(result.mean("tokens_p99")),
        "error_mean": float(errors.mean()),
        "error_mean_by_fold": errors.tolist(),
        "error_p99": float(result.mean("overall_p99")),
        "error_max": float(result.error_max.max()),
        "seconds_by_fold": [fold.seconds for fold in result.folds],
        "joints": {
            unit.name: {
                joint: dict(zip(_COLUMNS, map(float, values), strict=True))
                for joint, *values in zip(comparison.joint_names, *_joint_errors(result, unit), strict=True)
            }
            for unit in comparison.units
        },
    }


def write_tables(comparison: Comparison, folder: Path) -> None:
    """Write `compare.json`, and `compare.csv` with a line for every tokenizer, unit and joint."""
    content = as_dict(comparison)
    (folder / "compare.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    with (folder / "compare.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["tokenizer", "vocab_size", "tokens_mean", "tokens_p99", "unit", "joint", *_COLUMNS])
        for tokenizer in content["tokenizers"]:
            writer.writerows(_csv_lines(tokenizer, comparison.units[0].name))


def _csv_lines(tokenizer: dict[str, Any], own_unit: str) -> Iterator[list[Any]]:
    start = [tokenizer[name] for name in ("tokenizer", "vocab_size", "tokens_mean", "tokens_p99")]
    yield [*start, own_unit, ALL_JOINTS, *(tokenizer[column] for column in _COLUMNS)]
    for unit, joints in tokenizer["joints"].items():
        for joint, errors in joints.items():
            yield [*start, unit, joint, *(errors[column] for column in _COLUMNS)]
