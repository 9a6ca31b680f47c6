"""A processor as transformers saves and loads it, with the arguments and the name of the published FAST processor's."""

from fast_reference import ReferenceFast
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast
from transformers.processing_utils import ProcessorMixin


class UniversalActionProcessor(ProcessorMixin):
    """Only the vocabulary is a part with files of its own; the rest is written to `processor_config.json`.

    Args:
        bpe_tokenizer: The vocabulary.
        scale: Rounding steps in a coefficient of 1.
        vocab_size: Ids that fitting aimed at.
        min_token: Smallest rounded coefficient.
        action_dim: Joints.
        time_horizon: Steps of a chunk.
    """

    attributes = ("bpe_tokenizer",)
    bpe_tokenizer_class = "AutoTokenizer"

    def __init__(
        self,
        bpe_tokenizer: PreTrainedTokenizerFast,
        scale: float = 10,
        vocab_size: int = 1024,
        min_token: int = 0,
        *,
        action_dim: int | None = None,
        time_horizon: int | None = None,
    ):
        self.bpe_tokenizer = bpe_tokenizer
        self.scale, self.min_token = scale, min_token
        self.vocab_size = vocab_size
        self.action_dim, self.time_horizon = action_dim, time_horizon
        super().__init__(bpe_tokenizer)

    def encode(self, chunks: NDArray) -> list[list[int]]:
        """Ids of each chunk, (n, c, j)."""
        return ReferenceFast(self.bpe_tokenizer, self.scale, self.min_token).encode(chunks)
