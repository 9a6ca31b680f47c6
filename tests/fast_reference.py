"""The published FAST processor, one chunk at a time: the reference that `FastTokenizer` is compared with.

It follows arXiv 2501.09747 and what is known of the released files, with the same libraries: scipy for the cosine
transform, transformers for the vocabulary. Where the released processor answers a sequence with zeros, this one raises.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct, idct
from tokenizers import ByteLevelBPETokenizer, Tokenizer
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class ReferenceFast:
    """Vocabulary, rounding scale and smallest coefficient of a published tokenizer."""

    bpe: PreTrainedTokenizerFast
    scale: float
    min_token: int

    @classmethod
    def fit(cls, chunks: NDArray, scale: float = 10, vocab_size: int = 1024) -> Self:
        """Train as the released processor does; its initial alphabet is of characters, not of their bytes."""
        rounded = np.around(np.stack([dct(chunk, axis=0, norm="ortho") for chunk in chunks]) * scale)
        low, high = int(rounded.min()), int(rounded.max())
        texts = ["".join(map(chr, (chunk.ravel() - low).astype(int))) for chunk in rounded]
        bpe = ByteLevelBPETokenizer()
        trainer = BpeTrainer(
            vocab_size=vocab_size,
            min_frequency=2,
            show_progress=False,
            special_tokens=[],
            initial_alphabet=[chr(code) for code in range(high - low + 1)],
            max_token_length=10000,
        )
        bpe._tokenizer.train_from_iterator(texts, trainer=trainer)
        return cls(_in_transformers(Tokenizer.from_str(bpe.to_str())), scale, low)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the published layout."""
        config = json.loads((folder / "processor_config.json").read_text())
        bpe = _in_transformers(Tokenizer.from_file(str(folder / "tokenizer.json")))
        return cls(bpe, config["scale"], config["min_token"])

    def save(self, folder: Path, **fields: Any) -> Path:
        """Write the published layout; the released FAST+ leaves horizon and joints open."""
        self.bpe.save_pretrained(folder)
        config = {
            "action_dim": None,
            "auto_map": {"AutoProcessor": "processing_action_tokenizer.UniversalActionProcessor"},
            "min_token": self.min_token,
            "processor_class": "UniversalActionProcessor",
            "scale": self.scale,
            "time_horizon": None,
            "vocab_size": len(self.bpe),
        }
        (folder / "processor_config.json").write_text(json.dumps(config | fields))
        return folder

    def encode(self, chunks: NDArray) -> list[list[int]]:
        """Ids of each chunk, (n, c, j); too small a coefficient is clamped, too large a one may vanish."""
        ids = []
        for coefficients in np.around(dct(chunks, axis=1, norm="ortho") * self.scale):
            codes = np.maximum(coefficients.flatten() - self.min_token, 0).astype(int)
            ids.append(self.bpe("".join(map(chr, codes)))["input_ids"])
        return ids

    def decode(self, ids: list[list[int]], chunk_size: int, action_dim: int) -> NDArray:
        """Chunks, (n, c, j).

        Raises:
            ValueError: The wrong number of coefficients.
        """
        return np.stack([self._decode_one(sequence, chunk_size, action_dim) for sequence in ids])

    def _decode_one(self, ids: list[int], chunk_size: int, action_dim: int) -> NDArray:
        codes = np.array(list(map(ord, self.bpe.decode(ids))))
        coefficients = (codes + self.min_token).reshape(chunk_size, action_dim)
        return idct(coefficients / self.scale, axis=0, norm="ortho")


def _in_transformers(bpe: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=bpe, clean_up_tokenization_spaces=False)


def smooth_chunks(count: int, chunk_size: int, action_dim: int, seed: int = 0) -> NDArray:
    """Chunks of smooth motion, (n, c, j), about -1..1, as normalised joint recordings are."""
    rng = np.random.default_rng(seed)
    steps = np.arange(chunk_size)[:, None] / 50
    phase, turns = rng.uniform(0, 2 * np.pi, (count, 1, action_dim)), rng.uniform(0.05, 1.0, (count, 1, action_dim))
    offset, size = rng.uniform(-0.6, 0.6, (2, count, 1, action_dim))
    return (
        offset
        + size * np.sin(phase + 2 * np.pi * turns * steps)
        + rng.normal(0, 0.004, (count, chunk_size, action_dim))
    )
