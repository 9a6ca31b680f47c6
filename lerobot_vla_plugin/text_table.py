"""Tables for a terminal."""

from collections.abc import Sequence


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with the first column to the left and the others to the right, each as wide as it must be.

    Args:
        rows: Cells, equally many a row.
    """
    first, *widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join([label.ljust(first), *map(str.rjust, cells, widths)]) for label, *cells in rows)
    return [f"  {line}".rstrip() for line in lines]
