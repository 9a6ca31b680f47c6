"""One token for each joint of each step: the number of the bin that its value falls into.

Uniform bins are those of RT-1 (arXiv 2212.06817), RT-2 (2307.15818) and OpenVLA (2406.09246), whose rule fixes the ids:
256 evenly spaced edges over [-1, 1] number the values by `np.digitize`, so there are 255 bins, and one id more for what
reaches the upper end, which decodes like the last bin. What is below -1 has the first id.

Quantile bins hold equally many of the fitted values, joint by joint, and decode to the median of those.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from .chunk_checks import check_chunks, check_fit_chunks
from .fixed_length import id_array
from .grammar import TokenGrammar
from .tokenizer_files import FIELDS_FILE, read_fields, write_fields

_VERSION = 1
_FIELDS = {"bins": int, "quantiles": bool, "edges": list, "centers": list}


def openvla_ids(ids: NDArray, language_vocab_size: int) -> NDArray:
    """Turn our ids into those of OpenVLA, or back: it is its own inverse.

    OpenVLA overwrites the last words of its language model, counting back from the end: the value in bin k = 1..256
    has id `language_vocab_size - k`. Ours is k - 1. (OpenVLA decodes any other word as one of the outermost bins;
    `BinTokenizer.decode` refuses what comes out of here for it.)

    Args:
        ids: Ids of `BinTokenizer` or of OpenVLA, any shape.
        language_vocab_size: Words of the language model without padding: 32,000 for OpenVLA's Llama 2.
    """
    return language_vocab_size - 1 - np.asarray(ids)


@dataclass(frozen=True, eq=False)
class BinTokenizer:
    """One id for each joint of each step, step by step and joint by joint in it.

    Attributes:
        edges: Lower ends of all bins but the first, ascending, (j, vocab_size - 1); one row for uniform bins, which
            serve any number of joints.
        centers: Value that each id decodes to, (j, vocab_size); likewise.
        quantiles: Whether the bins are quantiles of each joint.
    """

    kind: ClassVar[str] = "bins"

    edges: NDArray[np.float64]
    centers: NDArray[np.float64]
    quantiles: bool

    @property
    def vocab_size(self) -> int:
        return self.centers.shape[1]

    @classmethod
    def fit(
        cls,
        chunks: NDArray,
        *,
        bins: int = 256,
        quantiles: bool = False,
        constant_joints: Sequence[int] = (),
        show_progress: bool = False,
    ) -> Self:
        """Lay bins over normalised chunks, (n, c, j); uniform ones are the same for all data.

        Args:
            chunks: Normalised action chunks, (n, c, j).
            bins: Ids.
            quantiles: Give each joint bins that hold equally many of its values.
            constant_joints: Joints that are known never to move.
            show_progress: Nothing here takes long enough for it.

        Raises:
            ValueError: Too few values for the bins, values that are not finite, or a joint that never moves.
        """
        if bins < 2:
            raise ValueError(f"expected at least 2 bins, got {bins}")
        chunks = check_fit_chunks(chunks, constant_joints, fewest=1)
        if not quantiles:
            return cls(*_uniform_bins(bins), quantiles)
        values = chunks.reshape(-1, chunks.shape[2])
        if len(values) < bins:
            raise ValueError(f"expected at least {bins} steps for {bins} quantile bins, got {len(values)}: record more")
        edges, centers = zip(*(_quantile_bins(joint, bins) for joint in values.T), strict=True)
        return cls(np.stack(edges), np.stack(centers), quantiles)

    def encode(self, chunks: NDArray) -> list[list[int]]:
        """Ids of each chunk, (n, c, j).

        Raises:
            ValueError: A value is not finite, or quantile bins were fitted to another number of joints.
        """
        chunks = check_chunks(chunks, action_dim=len(self.edges) if self.quantiles else None)
        count, chunk_size, action_dim = chunks.shape
        edges = np.broadcast_to(self.edges, (action_dim, self.edges.shape[1]))
        ids = [np.searchsorted(edges[joint], chunks[:, :, joint], side="right") for joint in range(action_dim)]
        return np.stack(ids, axis=2).reshape(count, chunk_size * action_dim).tolist()

    def decode(self, ids: Sequence[Sequence[int]], chunk_size: int, action_dim: int) -> NDArray[np.float64]:
        """Normalised chunks, (n, c, j).

        Raises:
            MalformedTokensError: Some sequence is not a whole chunk of that size; the message names its ids.
            ValueError: Quantile bins were fitted to another number of joints.
        """
        self._check_joints(action_dim)
        places = id_array(ids, np.zeros(chunk_size * action_dim, dtype=np.int64), self.vocab_size)
        centers = np.broadcast_to(self.centers, (action_dim, self.vocab_size))
        return centers[np.arange(action_dim), places.reshape(len(ids), chunk_size, action_dim)]

    def grammar(self, chunk_size: int, action_dim: int) -> TokenGrammar:
        """Every id may stand anywhere; a unit is one joint of one step.

        Raises:
            ValueError: Quantile bins were fitted to another number of joints.
        """
        self._check_joints(action_dim)
        shape = (1, self.vocab_size)
        return TokenGrammar(np.ones(shape, dtype=np.int32), np.zeros(shape, dtype=np.int32), chunk_size * action_dim)

    def save(self, folder: Path) -> None:
        """Write `action_tokenizer.json` into a folder."""
        tables = {"edges": self.edges.tolist(), "centers": self.centers.tolist()}
        write_fields(folder, self.kind, _VERSION, {"bins": self.vocab_size, "quantiles": self.quantiles, **tables})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            ValueError: The file is missing, cut short, or holds fields of something else.
        """
        fields = read_fields(folder, cls.kind, _VERSION, _FIELDS)
        try:
            edges, centers = (np.array(fields[name], dtype=np.float64) for name in ("edges", "centers"))
            joints = len(centers) if fields["quantiles"] else 1
            if (edges.shape, centers.shape) != ((joints, fields["bins"] - 1), (joints, fields["bins"])):
                raise ValueError(f"edges {edges.shape} and centers {centers.shape}, but {fields['bins']} bins")
            if not (np.isfinite(centers).all() and np.isfinite(edges).all() and (np.diff(edges) >= 0).all()):
                raise ValueError("edges and centers must be finite, and edges must ascend")
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"{Path(folder) / FIELDS_FILE} holds no bins: {error}") from error
        return cls(edges, centers, fields["quantiles"])

    def _check_joints(self, action_dim: int) -> None:
        if self.quantiles and action_dim != len(self.edges):
            raise ValueError(f"these quantile bins were fitted to {len(self.edges)} joints, got {action_dim}")


def _uniform_bins(bins: int) -> tuple[NDArray, NDArray]:
    edges = np.linspace(-1.0, 1.0, bins)
    centers = (edges[:-1] + edges[1:]) / 2
    return edges[None, 1:], np.append(centers, centers[-1])[None]


def _quantile_bins(values: NDArray, bins: int) -> tuple[NDArray, NDArray]:
    """Edges (bins - 1,) and centers (bins,) of one joint; an edge is the least value of the bin above it."""
    ascending = np.sort(values)
    edges = ascending[np.arange(1, bins) * len(values) // bins]
    # Where one value fills several bins, all but the last of them are empty; their middle is that value, too.
    bounds = np.concatenate([[0], np.searchsorted(ascending, edges), [len(values)]])
    return edges, ascending[(bounds[:-1] + bounds[1:]) // 2]
