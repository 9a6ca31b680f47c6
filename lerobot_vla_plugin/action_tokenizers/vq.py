"""A few codes for each joint's path through a chunk, from a VQ-VAE with residual levels that is fitted to the data.

A sequence goes joint by joint and from coarse to fine in it: joint 0 level 0, joint 0 level 1, ... Each level has a
range of ids of its own, `level * codes` and up.
"""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from .chunk_checks import check_chunks, check_fit_chunks, check_fitted_for
from .fixed_length import id_array
from .grammar import FORBIDDEN, TokenGrammar
from .tokenizer_files import FIELDS_FILE, is_a, read_fields, write_fields
from .vq_network import PathVQVAE
from .vq_training import fit_network

_log = logging.getLogger(__name__)

_VERSION = 1
_FIELDS = {"chunk_size": int, "action_dim": int, "codes": int, "levels": int, "code_usage": list}
_WEIGHTS_FILE = "vq.safetensors"
_FEWEST_CHUNKS = 10
# Paths that are encoded at a time: their distances to all codes are 16 MB or so.
_PATHS_AT_A_TIME = 1024


@dataclass(frozen=True)
class CodeUsage:
    """How well the codes of a level are used by the chunks that they were fitted to.

    Attributes:
        share: Codes that are used at all, 0..1.
        perplexity: As many equally frequent codes would carry as much information.
    """

    share: float
    perplexity: float


class VQTokenizer:
    """`levels` ids for each joint of a chunk.

    Attributes:
        chunk_size: Steps of a chunk.
        action_dim: Joints.
        codes: Ids of a level.
        levels: Residual levels.
        code_usage: Use of each level's codes.
    """

    kind: ClassVar[str] = "vq"

    def __init__(self, network: PathVQVAE, chunk_size: int, action_dim: int, code_usage: Sequence[CodeUsage] = ()):
        self._network = network
        self.chunk_size = chunk_size
        self.action_dim = action_dim
        self.levels, self.codes, _ = network.codebooks.shape
        self.code_usage = tuple(code_usage)

    @property
    def vocab_size(self) -> int:
        return self.levels * self.codes

    @classmethod
    def fit(
        cls,
        chunks: NDArray,
        *,
        codes: int = 512,
        levels: int = 4,
        steps: int = 500,
        constant_joints: Sequence[int] = (),
        show_progress: bool = False,
    ) -> Self:
        """Fit to normalised chunks, (n, c, j), and log how the codes are used; the same chunks give the same codes.

        Args:
            chunks: Normalised action chunks, (n, c, j).
            codes: Codes of a level.
            levels: Residual levels, tokens for each joint.
            steps: Steps of gradient descent.
            constant_joints: Joints that are known never to move.
            show_progress: Draw a progress bar.

        Raises:
            ValueError: Too few chunks, values that are not finite, or a joint that never moves.
        """
        if codes < 2 or levels < 1 or steps < 1:
            raise ValueError(
                f"expected at least 2 codes, 1 level and 1 step, got codes={codes}, levels={levels}, steps={steps}"
            )
        chunks = check_fit_chunks(chunks, constant_joints, _FEWEST_CHUNKS)
        _, chunk_size, action_dim = chunks.shape
        tokenizer = cls(fit_network(_paths(chunks), codes, levels, steps, show_progress), chunk_size, action_dim)
        tokenizer.code_usage = tuple(_usage(column, codes) for column in tokenizer._encode_paths(_paths(chunks)).T)
        for level, usage in enumerate(tokenizer.code_usage):
            used = 100 * usage.share
            _log.info("VQ level %d uses %.0f %% of %d codes, perplexity %.0f", level, used, codes, usage.perplexity)
        return tokenizer

    def encode(self, chunks: NDArray) -> list[list[int]]:
        """Ids of each chunk, (n, c, j).

        Raises:
            ValueError: A value is not finite, or the chunks have another shape than those fitted to.
        """
        chunks = check_chunks(chunks, self.chunk_size, self.action_dim)
        ids = self._encode_paths(_paths(chunks)) + self._first_ids(joints=1)
        return ids.reshape(len(chunks), self.action_dim * self.levels).tolist()

    def decode(self, ids: Sequence[Sequence[int]], chunk_size: int, action_dim: int) -> NDArray[np.float64]:
        """Normalised chunks, (n, c, j).

        Raises:
            MalformedTokensError: Some sequence is not a whole chunk; the message names its ids.
            ValueError: The tokenizer was fitted to another chunk.
        """
        check_fitted_for(chunk_size, action_dim, self.chunk_size, self.action_dim)
        codes = id_array(ids, self._first_ids(action_dim), self.codes).reshape(-1, self.levels)
        with torch.inference_mode():
            paths = self._network.decode(torch.from_numpy(codes)).numpy()
        return paths.reshape(len(ids), action_dim, chunk_size).transpose(0, 2, 1).astype(np.float64)

    def grammar(self, chunk_size: int, action_dim: int) -> TokenGrammar:
        """The levels take turns; a unit is one level of one joint.

        Raises:
            ValueError: The tokenizer was fitted to another chunk.
        """
        check_fitted_for(chunk_size, action_dim, self.chunk_size, self.action_dim)
        level = np.arange(self.levels)[:, None]
        counts = np.where(np.arange(self.vocab_size) // self.codes == level, 1, FORBIDDEN).astype(np.int32)
        next_states = np.broadcast_to((level + 1) % self.levels, counts.shape).astype(np.int32)
        return TokenGrammar(counts, next_states, action_dim * self.levels)

    def save(self, folder: Path) -> None:
        """Write `action_tokenizer.json` and `vq.safetensors` into a folder."""
        fields = {name: getattr(self, name) for name in ("chunk_size", "action_dim", "codes", "levels")}
        usage = [asdict(level) for level in self.code_usage]
        write_fields(folder, self.kind, _VERSION, {**fields, "code_usage": usage})
        save_file(self._network.state_dict(), Path(folder) / _WEIGHTS_FILE)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            ValueError: A file is missing, cut short, or holds fields or weights of something else.
        """
        fields = read_fields(folder, cls.kind, _VERSION, _FIELDS)
        path = Path(folder) / _WEIGHTS_FILE
        try:
            _check_sizes(fields)
            usage = _read_usage(fields["code_usage"], fields["levels"])
            network = PathVQVAE(fields["chunk_size"], fields["codes"], fields["levels"])
            network.load_state_dict(load_file(path), assign=True)
        except (OSError, SafetensorError, RuntimeError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(
                f"{path} and {FIELDS_FILE} beside it are no VQ tokenizer; was the copy cut short? {error}"
            ) from error
        if not all(weights.dtype == torch.float32 and weights.isfinite().all() for weights in network.parameters()):
            raise ValueError(f"{path}: expected finite float32 weights; fit the tokenizer anew")
        return cls(network.requires_grad_(False), fields["chunk_size"], fields["action_dim"], usage)

    def _encode_paths(self, paths: torch.Tensor) -> NDArray[np.int64]:
        with torch.inference_mode():
            return torch.cat([self._network.encode(part) for part in paths.split(_PATHS_AT_A_TIME)]).numpy()

    def _first_ids(self, joints: int) -> NDArray[np.int64]:
        return np.tile(np.arange(self.levels) * self.codes, joints)


def _paths(chunks: NDArray) -> torch.Tensor:
    """Each joint's path through each chunk (n, c, j), as (n * j, c)."""
    return torch.from_numpy(chunks.astype(np.float32).transpose(0, 2, 1).reshape(-1, chunks.shape[1]))


def _check_sizes(fields: dict[str, Any]) -> None:
    sizes = {name: fields[name] for name in ("chunk_size", "action_dim", "codes", "levels")}
    if min(sizes.values()) < 1:
        raise ValueError(f"expected sizes of at least 1, got {sizes}")


def _read_usage(read: list[Any], levels: int) -> list[CodeUsage]:
    usage = [CodeUsage(**level) for level in read]
    shares_and_perplexities = [value for level in usage for value in (level.share, level.perplexity)]
    if not all(is_a(value, float) and 0 <= value < np.inf for value in shares_and_perplexities):
        raise ValueError(f"expected numbers of at least 0 in code_usage, got {read}")
    if len(usage) not in (0, levels):
        raise ValueError(f"expected code_usage of {levels} levels, got {len(usage)}")
    return usage


def _usage(codes: NDArray, available: int) -> CodeUsage:
    shares = np.bincount(codes, minlength=available) / len(codes)
    used = shares[shares > 0]
    return CodeUsage(len(used) / available, float(np.exp(-(used * np.log(used)).sum())))
