"""The tokenizers that `lerobot-vla tokenizer compare` puts side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .tokenizer_fit import FIT_DEFAULTS


@dataclass(frozen=True)
class Row:
    """One tokenizer of the table.

    Attributes:
        series: Line of the plot that it belongs to.
        label: What is varied along that line, e.g. "scale 10".
        kind: Kind of tokenizer.
        options: Further arguments of `ChunkCodec.fit`.
    """

    series: str
    label: str
    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)


def _scales(series: str, scales: Sequence[float] = (5, 10, 20, 50), **options: Any) -> list[Row]:
    return [Row(series, f"{series}, scale {scale}", "fast", {"scale": scale, **options}) for scale in scales]


# Rounding that saves tokens needs finer steps for the same error.
_FINER = (10, 20, 40, 80)
# All that wins, as `fit` and training do it.
_COMBINED = {name: value for name, value in FIT_DEFAULTS["fast"].items() if name != "scale"}


_ROWS = [
    *_scales("fast"),
    *_scales("fast-equal-ranges", equal_ranges=True),
    *_scales("fast-relative", relative=True, equal_ranges=True),
    *_scales("fast-rate-distortion", _FINER, rate_distortion=True),
    *_scales("fast-combined", _FINER, **_COMBINED),
    *(Row("bins", f"bins, {bins}", "bins", {"bins": bins}) for bins in (64, 256)),
    *(Row("bins-relative", f"bins-relative, {bins}", "bins", {"bins": bins, "relative": True}) for bins in (64, 256)),
    *(Row("quantile-bins", f"quantile-bins, {bins}", "bins", {"bins": bins, "quantiles": True}) for bins in (64, 256)),
    *(Row("vq", f"vq, {levels} levels", "vq", {"levels": levels}) for levels in (2, 4)),
]
SERIES = tuple(dict.fromkeys(row.series for row in _ROWS))


def rows_of(series: Sequence[str]) -> list[Row]:
    """The tokenizers of some series, in the order of the table.

    Raises:
        ValueError: There is no such series.
    """
    unknown = sorted(set(series) - set(SERIES))
    if unknown or not series:
        raise ValueError(f"unknown tokenizers {unknown}; there are {', '.join(SERIES)}")
    return [row for row in _ROWS if row.series in series]
