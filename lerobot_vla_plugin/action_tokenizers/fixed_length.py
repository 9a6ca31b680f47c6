"""Token sequences of tokenizers that write every chunk with the same number of ids."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .protocol import MalformedTokensError


def id_array(ids: Sequence[Sequence[int]], first: NDArray, count: int) -> NDArray[np.int64]:
    """Check sequences of ids and put them into an array.

    Args:
        ids: n sequences.
        first: First id allowed at each place of a sequence, (length,).
        count: How many ids are allowed from there.

    Returns:
        The ids, (n, length), counted from the first one allowed at their place.

    Raises:
        MalformedTokensError: A sequence of another length, or an id that may not stand where it does.
    """
    odd = [index for index, sequence in enumerate(ids) if len(sequence) != len(first)]
    if odd:
        index = odd[0]
        raise MalformedTokensError(
            f"expected {len(first)} action tokens, got {len(ids[index])} in sequence {index}: {list(ids[index])}"
        )
    array = np.asarray(ids).reshape(len(ids), len(first))
    if array.size and array.dtype.kind not in "iu":
        raise MalformedTokensError(f"expected integer action tokens, got {array.dtype} in {list(ids[0])}")
    places = array.astype(np.int64) - first
    wrong = np.argwhere((places < 0) | (places >= count))
    if len(wrong):
        index, place = wrong[0]
        raise MalformedTokensError(
            f"{len(wrong)} action tokens may not stand where they do, the first is {array[index, place]} at place "
            f"{place} of sequence {index}: expected {first[place]}..{first[place] + count - 1}, got {list(ids[index])}"
        )
    return places
