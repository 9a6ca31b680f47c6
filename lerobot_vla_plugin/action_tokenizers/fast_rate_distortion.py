"""Which FAST tokens to write for a chunk, when a token saved is worth some error: rate-distortion optimised encoding.

Plain FAST rounds each coefficient by itself and then merges what it can. Here the vocabulary takes part in rounding: of
all id sequences that decode to a whole chunk, the one of least `squared error + price * ids` is found, exactly, as a
shortest path over the coefficients (Viterbi). Video encoders choose their coefficients so (rate-distortion optimised
quantisation, Sullivan & Wiegand 1998). Decoders read the ids as they read any others. The cosine transform is
orthonormal: squared errors of coefficients are squared errors of actions.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct, idct

# Squared error that an id must save, in squared rounding steps. Tokens against error lie on the same curve for 1 to 4:
# a lower price with coarser steps does as well as a higher one with finer steps.
PRICE = 2.0
# Largest error of an action that is aimed at, in rounding steps.
MAX_ERROR = 1.0
# A chunk that errs more is aimed at anew so that its worst errors would shrink to this share of the largest, so often.
_SHRINK, _ATTEMPTS = 0.8, 8
# Targets are multiples of this. Sums of products are then exact in float32, so that the ids of a chunk depend neither
# on the chunks that are encoded with it nor on the order in which a machine adds.
_GRAIN = 1 / 16
# Targets further outside the alphabet than this, in rounding steps, are taken for this far: its end is so much the
# nearest that no price makes up for another, and float32 holds the squares.
_OUTSIDE = 4.0
# Chunks at a time, for memory: a chunk of 300 coefficients takes about 2 MB.
_BATCH = 32


class _Alternatives:
    """Ways (s) to write equally many coefficients with equally many ids.

    Args:
        coefficients: What each stands for, (s, length).
        ids: What is written, (s, number).
    """

    def __init__(self, coefficients: Sequence[Sequence[int]], ids: Sequence[Sequence[int]]) -> None:
        # Ascending, for `_nearest`.
        order = sorted(range(len(coefficients)), key=lambda index: tuple(coefficients[index]))
        self.coefficients = np.array([coefficients[index] for index in order], dtype=np.float32)
        self.ids = np.array([ids[index] for index in order])
        self.length = self.coefficients.shape[1]
        # Long alternatives are mostly zeros, for which there is nothing to multiply.
        self._used = np.flatnonzero(self.coefficients.any(axis=0))
        self._factors = -2 * self.coefficients[:, self._used].T
        self._squares = (self.coefficients**2).sum(axis=1)

    def cheapest(self, targets: NDArray[np.float32]) -> tuple[NDArray, NDArray]:
        """Least squared error, and the alternative that has it, from each coefficient on, (n, positions) each.

        Args:
            targets: Coefficients before rounding, (n, t), in rounding steps.

        Returns:
            The errors lack the squared targets, which are the same on every path.
        """
        if self.length == 1:
            chosen = self._nearest(targets)
            nearest = self.coefficients[chosen, 0]
            return nearest * (nearest - 2 * targets), chosen
        windows = np.lib.stride_tricks.sliding_window_view(targets, self.length, axis=1)[..., self._used]
        errors = windows @ self._factors
        errors += self._squares
        chosen = errors.argmin(axis=-1)
        return np.take_along_axis(errors, chosen[..., None], axis=-1)[..., 0], chosen

    def _nearest(self, targets: NDArray[np.float32]) -> NDArray[np.int64]:
        values = self.coefficients[:, 0]
        return np.searchsorted((values[1:] + values[:-1]) / 2, targets)


@dataclass(frozen=True)
class Written:
    """One chunk as it is written: ids, and the coefficients that they stand for."""

    ids: list[int]
    coefficients: list[float]


class TokenChooser:
    """Chooses ids from what a vocabulary can write.

    Args:
        spellings: Coefficients and the ids that write them; every coefficient must have one of its own.
        price: Squared error that an id must save, in squared rounding steps.
    """

    def __init__(self, spellings: Iterable[tuple[Sequence[int], Sequence[int]]], price: float = PRICE) -> None:
        grouped: dict[tuple[int, int], list] = defaultdict(list)
        for coefficients, ids in spellings:
            grouped[len(coefficients), len(ids)].append((coefficients, ids))
        self._alternatives = [
            _Alternatives([coefficients for coefficients, _ in pairs], [ids for _, ids in pairs])
            for _, pairs in sorted(grouped.items())
        ]
        self._price = price
        single = np.concatenate([group.coefficients for group in self._alternatives if group.length == 1])
        self._lowest, self._highest = single.min() - _OUTSIDE, single.max() + _OUTSIDE

    def choose(self, targets: NDArray) -> list[list[int]]:
        """Ids of each chunk: the cheapest, or those after which no action errs by more than MAX_ERROR.

        Args:
            targets: Cosine coefficients before rounding, (n, c, j), in rounding steps.
        """
        targets = np.clip(targets, self._lowest, self._highest)
        aims, rows = targets.copy(), np.arange(len(targets))
        ids: list[list[int]] = [[] for _ in rows]
        largest = np.full(len(targets), np.inf)
        for _ in range(_ATTEMPTS):
            if not len(rows):
                break
            written = self.cheapest(aims[rows])
            coefficients = np.array([chunk.coefficients for chunk in written]).reshape(aims[rows].shape)
            errors = np.asarray(idct(coefficients - targets[rows], axis=1, norm="ortho"))
            found = np.abs(errors).max(axis=(1, 2))
            for row, chunk, error in zip(rows, written, found, strict=True):
                if error < largest[row]:
                    ids[row], largest[row] = chunk.ids, error
            rows, errors = rows[found > MAX_ERROR], errors[found > MAX_ERROR]
            # Finer steps would cost every chunk tokens, and would not bring back a jump whose coefficients are all
            # rounded to zero; aiming beyond it does.
            too_much = errors - np.clip(errors, -_SHRINK * MAX_ERROR, _SHRINK * MAX_ERROR)
            aims[rows] -= dct(too_much, axis=1, norm="ortho")
        return ids

    def cheapest(self, targets: NDArray) -> list[Written]:
        """What has the least squared error plus the price of the ids.

        Args:
            targets: Cosine coefficients before rounding, (n, c, j), in rounding steps.
        """
        flat = (np.round(targets.reshape(len(targets), -1) / _GRAIN) * _GRAIN).astype(np.float32)
        batches = np.split(flat, range(_BATCH, len(flat), _BATCH))
        return [written for batch in batches for written in _Lattice(self._alternatives, batch, self._price).written()]


class _Lattice:
    """The cheapest way to every coefficient of some chunks.

    Args:
        alternatives: What can be written.
        targets: Coefficients before rounding, (n, t), in rounding steps.
        price: Squared error that an id must save.
    """

    def __init__(self, alternatives: Sequence[_Alternatives], targets: NDArray, price: float) -> None:
        self._alternatives = [group for group in alternatives if group.length <= targets.shape[1]]
        # By the number of coefficients that are written behind an alternative: (t + 1, n, groups).
        shape = (targets.shape[1] + 1, len(targets), len(self._alternatives))
        costs = np.full(shape, np.inf)
        self._chosen = np.zeros(shape, dtype=np.int32)
        for column, group in enumerate(self._alternatives):
            errors, chosen = group.cheapest(targets)
            costs[group.length :, :, column] = errors.T + price * group.ids.shape[1]
            self._chosen[group.length :, :, column] = chosen.T
        self._last = self._last_groups(costs)

    def _last_groups(self, costs: NDArray) -> NDArray[np.int64]:
        """Group of the last step on the cheapest way to each number of coefficients, (t + 1, n)."""
        ends, count, _ = costs.shape
        lengths = np.array([group.length for group in self._alternatives])
        # What would begin before the first coefficient reads the row behind the last, which stays infinite.
        cheapest = np.full((ends + 1, count), np.inf)
        cheapest[0] = 0
        last = np.zeros((ends, count), dtype=np.int64)
        for end in range(1, ends):
            totals = cheapest[np.maximum(end - lengths, -1)].T + costs[end]
            last[end] = totals.argmin(axis=1)
            cheapest[end] = totals[np.arange(count), last[end]]
        return last

    def written(self) -> list[Written]:
        """The cheapest way through each chunk."""
        return [self._read_backwards(row) for row in range(self._last.shape[1])]

    def _read_backwards(self, row: int) -> Written:
        ids, coefficients = [], []
        end = len(self._last) - 1
        while end > 0:
            group = self._alternatives[self._last[end, row]]
            chosen = self._chosen[end, row, self._last[end, row]]
            ids.append(group.ids[chosen])
            coefficients.append(group.coefficients[chosen])
            end -= group.length
        return Written(np.concatenate(ids[::-1]).tolist(), np.concatenate(coefficients[::-1]).tolist())
