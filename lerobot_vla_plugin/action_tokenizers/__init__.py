"""Action chunks <-> token ids: numpy in, ids out. `protocol.py` says what every tokenizer offers."""

from typing import TYPE_CHECKING, Any

from .grammar import TokenGrammar
from .kinds import TOKENIZER_CLASS_NAMES, TOKENIZER_KINDS, load_action_tokenizer, tokenizer_class
from .protocol import ActionTokenizer, MalformedTokensError

if TYPE_CHECKING:
    from .bins import BinTokenizer
    from .fast import FastTokenizer
    from .vq import VQTokenizer

__all__ = [
    "TOKENIZER_KINDS",
    "ActionTokenizer",
    "BinTokenizer",
    "FastTokenizer",
    "MalformedTokensError",
    "TokenGrammar",
    "VQTokenizer",
    "load_action_tokenizer",
    "tokenizer_class",
]


def __getattr__(name: str) -> Any:
    # Imported when asked for: FAST brings scipy and tokenizers, VQ brings torch.
    if name in TOKENIZER_CLASS_NAMES:
        return tokenizer_class(TOKENIZER_CLASS_NAMES[name])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
