"""The files of a published FAST tokenizer: `processor_config.json` and `tokenizer.json`. Only JSON is read, no code."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import snapshot_download
from tokenizers import Tokenizer

from .tokenizer_files import is_a, read_json

PROCESSOR_FILE = "processor_config.json"
BPE_FILE = "tokenizer.json"
_TRANSFORMERS_FILE = "tokenizer_config.json"
_PROCESSOR_CLASS = "UniversalActionProcessor"

_UNUSED_MODEL_OPTIONS = ("dropout", "unk_token", "byte_fallback", "continuing_subword_prefix", "end_of_word_suffix")
_REQUIRED = {"scale", "min_token", "vocab_size"}
_OPTIONAL = {"action_dim", "time_horizon", "processor_class", "auto_map"}


class ProcessorConfig(NamedTuple):
    """What `processor_config.json` says.

    Attributes:
        scale: Rounding steps in a coefficient of 1.
        min_token: Smallest rounded coefficient.
        vocab_size: Most ids.
        time_horizon: Steps of a chunk; None for any.
        action_dim: Joints; None for any.
    """

    scale: float
    min_token: int
    vocab_size: int
    time_horizon: int | None = None
    action_dim: int | None = None


def published_folder(source: str | Path) -> Path:
    """Folder of a published tokenizer: a local one, or a copy from the Hugging Face hub by name.

    Raises:
        ValueError: There is no such folder and no such name on the hub, or the hub cannot be reached.
    """
    if Path(source).is_dir():
        return Path(source)
    try:
        return Path(snapshot_download(str(source), allow_patterns=[PROCESSOR_FILE, BPE_FILE]))
    except Exception as error:
        raise ValueError(
            f"expected a folder with {PROCESSOR_FILE} and {BPE_FILE}, or the name of one on the Hugging Face hub such "
            f"as physical-intelligence/fast, got {str(source)!r}: {error}"
        ) from error


def read_processor_config(folder: Path) -> ProcessorConfig:
    """Read `processor_config.json`.

    Raises:
        ValueError: The file is missing or cut short, or holds fields of something else than a FAST processor.
    """
    path = folder / PROCESSOR_FILE
    fields = read_json(path)
    missing, unknown = _REQUIRED - fields.keys(), fields.keys() - _REQUIRED - _OPTIONAL
    processor_class = fields.get("processor_class", _PROCESSOR_CLASS)
    if missing or unknown or processor_class != _PROCESSOR_CLASS:
        raise ValueError(
            f"{path} is no FAST tokenizer's: missing {sorted(missing)}, unknown {sorted(unknown)}, processor_class "
            f"{processor_class!r}; expected {sorted(_REQUIRED)} and class {_PROCESSOR_CLASS!r}"
        )
    config = ProcessorConfig(**{name: fields[name] for name in ProcessorConfig._fields if name in fields})
    sizes = [config.vocab_size, *(size for size in (config.time_horizon, config.action_dim) if size is not None)]
    whole = all(is_a(size, int) and size > 0 for size in sizes) and is_a(config.min_token, int)
    if not whole or not is_a(config.scale, float) or not 0 < config.scale < float("inf"):
        raise ValueError(f"{path}: expected a positive scale and whole numbers besides, sizes above 0, got {config}")
    return config


def read_bpe(folder: Path) -> Tokenizer:
    """The byte-level BPE of `tokenizer.json`.

    Raises:
        ValueError: The file is missing or cut short, or holds another model than FAST's.
    """
    path = folder / BPE_FILE
    content = read_json(path)
    _check_bpe(path, content)
    try:
        return Tokenizer.from_str(json.dumps(content))
    except Exception as error:  # tokenizers raises bare exceptions
        raise ValueError(f"{path} cannot be read ({error}); copy it anew") from error


def _check_bpe(path: Path, content: dict[str, Any]) -> None:
    # Whatever else is there would change the text before or after merging, and with it the coefficients.
    model, split, decoder = (_object(content, name) for name in ("model", "pre_tokenizer", "decoder"))
    post_processor = _object(content, "post_processor") or {"type": "ByteLevel"}
    expected_and_found = {
        "model.type": ("BPE", model.get("type", "BPE" if "merges" in model else None)),
        "pre_tokenizer": ("ByteLevel", split.get("type")),
        "pre_tokenizer.add_prefix_space": (False, split.get("add_prefix_space", False)),
        "decoder": ("ByteLevel", decoder.get("type")),
        "post_processor": ("ByteLevel", post_processor.get("type")),
        **{name: (None, content.get(name) or None) for name in ("normalizer", "added_tokens", "truncation", "padding")},
        **{f"model.{name}": (None, model.get(name) or None) for name in _UNUSED_MODEL_OPTIONS},
    }
    wrong = [
        f"{name} {found!r} instead of {expected!r}"
        for name, (expected, found) in expected_and_found.items()
        if found != expected
    ]
    vocabulary = _object(model, "vocab")
    ids = {index for index in vocabulary.values() if is_a(index, int)}
    if not vocabulary or "" in vocabulary or ids != set(range(len(vocabulary))):
        wrong.append("model.vocab without a token for each of the ids 0, 1, 2, ...")
    if wrong:
        raise ValueError(f"{path} is no FAST vocabulary (a byte-level BPE and nothing else): {'; '.join(wrong)}")


def _object(content: dict[str, Any], name: str) -> dict[str, Any]:
    value = content.get(name)
    return value if isinstance(value, dict) else {}


def write_published(folder: Path, bpe: Tokenizer, config: ProcessorConfig) -> None:
    """Write the files so that the published processor and LeRobot's read them, too."""
    folder.mkdir(parents=True, exist_ok=True)
    bpe.save(str(folder / BPE_FILE))
    transformers_fields = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    processor_fields = config._asdict() | {"processor_class": _PROCESSOR_CLASS}
    for name, content in ((_TRANSFORMERS_FILE, transformers_fields), (PROCESSOR_FILE, processor_fields)):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
