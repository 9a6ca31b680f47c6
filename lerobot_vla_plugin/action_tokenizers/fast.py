"""FAST action tokens (Pertsch et al. 2025, arXiv 2501.09747): cosine transform, rounding, byte-pair encoding.

A chunk's cosine coefficients along time are scaled and rounded, laid out frequency by frequency (all joints of
frequency 0 first), and each is written as the character `coefficient - min_token`; the text is encoded with byte-level
BPE. Ids and actions are those of the published processor wherever that one decodes what it encoded; where it would
drop a coefficient or answer with zeros, this one clamps or raises.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct, idct
from tokenizers import Tokenizer

from .chunk_checks import check_chunks, check_fit_chunks, check_fitted_for
from .fast_bytes import (
    LAST_CODE,
    encodable_codes,
    last_encodable_code,
    nearest_codes,
    run_tokens,
    token_bytes,
    train_bpe,
)
from .fast_files import (
    BPE_FILE,
    PROCESSOR_FILE,
    ProcessorConfig,
    is_scale,
    published_folder,
    read_published,
    write_published,
)
from .fast_rate_distortion import TokenChooser
from .fast_reader import TokenReader
from .grammar import TokenGrammar
from .tokenizer_files import FIELDS_FILE, read_fields, write_fields

_VERSION = 1
_FIELDS = {"max_token": int, "rate_distortion": bool}
# Merges need pairs that recur: with 16 chunks a chunk takes 1.5 times the tokens it takes with 1,000, with fewer nearly
# one a byte.
_FEWEST_CHUNKS = 16
# More do not shorten held-out chunks by 1 %, and the time goes with their number.
_MOST_CHUNKS_TO_MERGE = 4096
# Alphabet over the largest coefficient seen. Of an unseen episode a few leave what was seen, most of them means of a
# joint: on three real episodes, one left out, this costs 0.5 tokens a chunk of 33 and spares 45 % of the mean error.
_HEADROOM = 1.5


@dataclass(frozen=True, eq=False)
class FastTokenizer:
    """Action chunks <-> FAST tokens.

    Attributes:
        bpe: Byte-level BPE over the coefficients' characters.
        scale: Rounding steps in a coefficient of 1.
        min_token: Smallest rounded coefficient, character 0.
        max_token: Largest rounded coefficient.
        chunk_size: Steps of the chunks it was fitted to; None when the files do not say.
        action_dim: Joints of these chunks; None when the files do not say.
        rate_distortion: Whether rounding is left to what saves tokens, see `fit`.
    """

    kind: ClassVar[str] = "fast"

    bpe: Tokenizer = field(repr=False)
    scale: float
    min_token: int
    max_token: int
    chunk_size: int | None = None
    action_dim: int | None = None
    rate_distortion: bool = False

    def __post_init__(self) -> None:
        if not self.min_token <= 0 <= self.max_token <= self.min_token + LAST_CODE:
            raise ValueError(
                f"expected at most {LAST_CODE + 1} values of a coefficient, 0 among them, got "
                f"{self.min_token}..{self.max_token}"
            )

    @property
    def vocab_size(self) -> int:
        return len(self._tokens)

    @classmethod
    def fit(
        cls,
        chunks: NDArray,
        *,
        scale: float = 10.0,
        vocab_size: int = 1024,
        rate_distortion: bool = False,
        constant_joints: Sequence[int] = (),
        show_progress: bool = False,
    ) -> Self:
        """Learn which runs of coefficients become one token.

        Args:
            chunks: Normalised action chunks, (n, c, j).
            scale: Rounding steps in a coefficient of 1: more is finer and longer.
            vocab_size: Most ids; fewer are made where the chunks repeat too little.
            rate_distortion: Let `encode` round coefficients so that tokens are saved, aiming at errors below 1 / scale.
                At the same mean error, a scale half as large again, it takes a seventh fewer tokens and halves the
                largest error; encoding takes some milliseconds a chunk.
            constant_joints: Joints that are known never to move.
            show_progress: Draw a progress bar.

        Raises:
            ValueError: Too few chunks, values that are not finite, a joint that never moves, or a scale so fine that
                the coefficients have more values than the vocabulary or Unicode can write.
        """
        if not is_scale(scale):
            raise ValueError(f"expected a positive scale, got {scale}; 10 is the published one")
        chunks = check_fit_chunks(chunks, constant_joints, _FEWEST_CHUNKS)
        rounded = np.around(_coefficients(chunks, scale))
        widest = np.ceil(_HEADROOM * np.abs(rounded).max())
        if 2 * widest > LAST_CODE:
            raise ValueError(
                f"expected coefficients of at most {LAST_CODE + 1} values, got -{widest:g}..{widest:g} at scale "
                f"{scale}: lower the scale, or remove the frames with the outliers"
            )
        largest = int(widest)
        # Evenly spread, so that every episode has its part.
        spread = np.linspace(0, len(chunks) - 1, min(len(chunks), _MOST_CHUNKS_TO_MERGE)).astype(np.int64)
        texts = _texts(rounded[spread].astype(np.int64) + largest)
        bpe = train_bpe(texts, 2 * largest, vocab_size, show_progress)
        return cls(bpe, scale, -largest, largest, *chunks.shape[1:], rate_distortion=rate_distortion)

    def encode(self, chunks: NDArray) -> list[list[int]]:
        """Token ids of each chunk, (n, c, j). A coefficient that cannot be written becomes the nearest that can.

        Raises:
            ValueError: A value is not finite, or the shape is not what the tokenizer was fitted for.
        """
        if not self.rate_distortion:
            return self.encode_coefficients(self.coefficients(chunks))
        return self._chooser.choose(_coefficients(check_chunks(chunks, self.chunk_size, self.action_dim), self.scale))

    def coefficients(self, chunks: NDArray) -> NDArray[np.int64]:
        """Rounded cosine coefficients of chunks (n, c, j), frequency before joint, in the same shape.

        Raises:
            ValueError: A value is not finite, or the shape is not what the tokenizer was fitted for.
        """
        checked = check_chunks(chunks, self.chunk_size, self.action_dim)
        # The published processor transforms float32 in float32, where other values lie halfway between two
        # coefficients; np.around rounds those to even, as there.
        is_single = np.asarray(chunks).dtype in (np.float16, np.float32)
        rounded = np.around(_coefficients(checked.astype(np.float32) if is_single else checked, self.scale))
        codes = np.clip(rounded, self.min_token, self.max_token).astype(np.int64) - self.min_token
        return self._nearest[codes] + self.min_token

    def encode_coefficients(self, coefficients: NDArray[np.int64]) -> list[list[int]]:
        """Token ids of coefficients (n, c, j) within the alphabet, as `coefficients` gives them."""
        texts = _texts(coefficients - self.min_token)
        return [encoding.ids for encoding in self.bpe.encode_batch_fast(texts)]

    def decode(self, ids: Sequence[Sequence[int]], chunk_size: int, action_dim: int) -> NDArray[np.float64]:
        """Normalised chunks, (n, c, j).

        Raises:
            MalformedTokensError: Some sequence is not a whole chunk of that size; the message names its ids.
            ValueError: The tokenizer was fitted for another chunk.
        """
        scaled = self.decode_coefficients(ids, chunk_size, action_dim) / self.scale
        return np.asarray(idct(scaled, axis=1, norm="ortho", overwrite_x=True))

    def decode_coefficients(self, ids: Sequence[Sequence[int]], chunk_size: int, action_dim: int) -> NDArray[np.int32]:
        """Rounded cosine coefficients (n, c, j).

        Raises:
            MalformedTokensError: Some sequence is not a whole chunk of that size; the message names its ids.
            ValueError: The tokenizer was fitted for another chunk.
        """
        check_fitted_for(chunk_size, action_dim, self.chunk_size, self.action_dim)
        codes = self._reader.read(ids, chunk_size * action_dim)
        return codes.reshape(-1, chunk_size, action_dim) + np.int32(self.min_token)

    def grammar(self, chunk_size: int, action_dim: int) -> TokenGrammar:
        """Which ids complete how many coefficients; other states than 0 are characters that have begun.

        Raises:
            ValueError: The tokenizer was fitted for another chunk.
        """
        check_fitted_for(chunk_size, action_dim, self.chunk_size, self.action_dim)
        counts, next_states = run_tokens(self._tokens, self.max_token - self.min_token)
        return TokenGrammar(counts, next_states, chunk_size * action_dim)

    def save(self, folder: Path) -> None:
        """Write `action_tokenizer.json`, and the published layout beside it, which any FAST decoder reads."""
        folder = Path(folder)
        fields = {name: getattr(self, name) for name in _FIELDS}
        write_fields(folder, self.kind, _VERSION, fields)
        config = ProcessorConfig(self.scale, self.min_token, self.vocab_size, self.chunk_size, self.action_dim)
        write_published(folder, self.bpe, config)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            ValueError: A file is missing, cut short, or holds fields of something else.
        """
        return cls._from_files(Path(folder), **read_fields(folder, cls.kind, _VERSION, _FIELDS))

    @classmethod
    def from_published(cls, source: str | Path) -> Self:
        """Read a published tokenizer: a folder with `processor_config.json` and `tokenizer.json`, or its hub name.

        Raises:
            ValueError: There is none of that name, or a file is missing, cut short or of something else.
        """
        return cls._from_files(published_folder(source))

    @classmethod
    def _from_files(cls, folder: Path, max_token: int | None = None, rate_distortion: bool = False) -> Self:
        is_ours = max_token is not None
        config, bpe = read_published(folder, vocab_size_is_exact=is_ours)
        shape = (config.time_horizon, config.action_dim)
        try:
            if max_token is None:
                # The published files do not name it: the largest that the vocabulary can spell.
                max_token = config.min_token + last_encodable_code(bpe.get_vocab())
            return cls(bpe, config.scale, config.min_token, max_token, *shape, rate_distortion)
        except ValueError as error:
            other = FIELDS_FILE if is_ours else BPE_FILE
            raise ValueError(
                f"{folder / PROCESSOR_FILE} and {other} do not belong together: {error}; copy both from one tokenizer"
            ) from error

    @property
    def coefficient_counts(self) -> NDArray[np.int64]:
        """Coefficients that each id begins, (vocab_size,); those of a chunk's ids add up to chunk_size * action_dim."""
        return self._reader.character_counts

    @cached_property
    def token_coefficients(self) -> list[tuple[int, ...] | None]:
        """Coefficients of each id; None for an id that ends or begins inside a character, or leaves the alphabet."""
        return [self._coefficients_of(token) for token in self._tokens]

    def _coefficients_of(self, token: bytes) -> tuple[int, ...] | None:
        try:
            coefficients = tuple(ord(character) + self.min_token for character in token.decode())
        except UnicodeDecodeError:
            return None
        return coefficients if max(coefficients) <= self.max_token else None

    @cached_property
    def spellings(self) -> list[tuple[tuple[int, ...], list[int]]]:
        """Runs of coefficients that can be written, and the ids that write each; single ones are all there."""
        spellings = [(run, [index]) for index, run in enumerate(self.token_coefficients) if run]
        whole = {run[0] - self.min_token for run, _ in spellings if len(run) == 1}
        # A character that is no token is written byte by byte.
        for code in sorted(set(self._nearest.tolist()) - whole):
            spellings.append(((code + self.min_token,), self.bpe.encode(chr(code)).ids))
        return spellings

    @cached_property
    def _chooser(self) -> TokenChooser:
        return TokenChooser(self.spellings)

    @cached_property
    def _tokens(self) -> NDArray[np.object_]:
        return np.array(token_bytes(self.bpe.get_vocab()), dtype=object)

    @cached_property
    def _reader(self) -> TokenReader:
        return TokenReader(self._tokens, self.max_token - self.min_token)

    @cached_property
    def _nearest(self) -> NDArray[np.int64]:
        last_code = self.max_token - self.min_token
        return nearest_codes(encodable_codes(self.bpe.get_vocab(), last_code), last_code)


def _coefficients(chunks: NDArray, scale: float) -> NDArray:
    # Larger values are clipped first: sums of them would overflow to infinity, and differences of those are no numbers.
    limit = np.sqrt(np.finfo(chunks.dtype).max)
    with np.errstate(over="ignore"):  # what is infinite now becomes the end of the alphabet
        return np.asarray(dct(np.clip(chunks, -limit, limit), axis=1, norm="ortho")) * float(scale)


def _texts(codes: NDArray[np.int64]) -> list[str]:
    """One character a coefficient, one string a chunk of codes (n, c, j)."""
    text = codes.astype("<u4").tobytes().decode("utf-32-le")
    length = codes[0].size if len(codes) else 1
    return [text[start : start + length] for start in range(0, len(text), length)]
