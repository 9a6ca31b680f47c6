"""The files of a published FAST tokenizer: `processor_config.json` and `tokenizer.json`. Only JSON is read, no code.

Processors look for `tokenizer.json` beside `processor_config.json` up to transformers 4; from 5 on they write it into
and read it from a folder of the tokenizer's name in the processor, `bpe_tokenizer/`. Both are read here, and written.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from huggingface_hub import snapshot_download
from tokenizers import Tokenizer

from .tokenizer_files import is_a, read_json

PROCESSOR_FILE = "processor_config.json"
BPE_FILE = "tokenizer.json"
_BPE_FOLDERS = ("", "bpe_tokenizer")
_TRANSFORMERS_FILE = "tokenizer_config.json"
_PROCESSOR_CLASS = "UniversalActionProcessor"

_UNUSED_MODEL_OPTIONS = ("dropout", "unk_token", "byte_fallback", "continuing_subword_prefix", "end_of_word_suffix")
_REQUIRED = {"scale", "min_token", "vocab_size"}
_OPTIONAL = {"action_dim", "time_horizon", "processor_class", "auto_map"}
_IDS_ALONE = [{"Sequence": {"id": "A", "type_id": 0}}]
# The published trainer wants a vocab_size of all characters but one, and adds the symbols of their bytes to them.
_MOST_IDS_BEYOND_VOCAB_SIZE = 1 + 256


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
        files = [PROCESSOR_FILE, *(path.as_posix() for path in _bpe_paths(Path()))]
        return Path(snapshot_download(str(source), allow_patterns=files))
    except Exception as error:
        raise ValueError(
            f"expected a folder with {PROCESSOR_FILE} and {BPE_FILE}, or the name of one on the Hugging Face hub such "
            f"as physical-intelligence/fast, got {str(source)!r}: {error}"
        ) from error


def _bpe_paths(folder: Path) -> list[Path]:
    return [folder / inner / BPE_FILE for inner in _BPE_FOLDERS]


def is_scale(scale: float) -> bool:
    """Whether coefficients can be multiplied with it and divided by it, also in float32."""
    limits = np.finfo(np.float32)
    return float(limits.tiny) <= scale <= float(limits.max)


def read_published(folder: Path, vocab_size_is_exact: bool) -> tuple[ProcessorConfig, Tokenizer]:
    """Read the files, which must belong together.

    Args:
        folder: Folder of the tokenizer.
        vocab_size_is_exact: Whether `vocab_size` counts the ids, as we write it; else it is what fitting aimed at.

    Raises:
        ValueError: A file is missing, cut short or of something else, or `vocab_size` is of another vocabulary.
    """
    config, bpe = read_processor_config(folder), read_bpe(folder)
    ids = bpe.get_vocab_size()
    most = config.vocab_size if vocab_size_is_exact else config.vocab_size + _MOST_IDS_BEYOND_VOCAB_SIZE
    if ids > most or (vocab_size_is_exact and ids < most):
        raise ValueError(
            f"{folder / PROCESSOR_FILE} says vocab_size {config.vocab_size}, but {BPE_FILE} has {ids} tokens: they are "
            "of different tokenizers; copy both from one"
        )
    return config, bpe


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
    if not whole or config.min_token > 0 or not is_a(config.scale, float) or not is_scale(config.scale):
        raise ValueError(
            f"{path}: expected a positive scale within float32 and whole numbers besides, sizes above 0, min_token not "
            f"above 0, got {config}"
        )
    return config


def read_bpe(folder: Path) -> Tokenizer:
    """The byte-level BPE of `tokenizer.json`, wherever it lies.

    Raises:
        ValueError: The file is missing or cut short, holds another model than FAST's, or lies in both places and
            differs.
    """
    paths = [path for path in _bpe_paths(folder) if path.is_file()] or [folder / BPE_FILE]
    first, *others = [_read_bpe(path) for path in paths]
    if any(_merging(other) != _merging(first) for other in others):
        raise ValueError(
            f"{' and '.join(map(str, paths))} are different vocabularies, and readers differ in which they take; "
            "delete the one that is out of date, or save the tokenizer anew"
        )
    return first


def _merging(bpe: Tokenizer) -> tuple[Any, ...]:
    # What the ids depend on; transformers adds to the rest when it saves what it has loaded.
    content = json.loads(bpe.to_str())
    return content["model"], content["pre_tokenizer"]


def _read_bpe(path: Path) -> Tokenizer:
    content = read_json(path)
    _check_bpe(path, content)
    try:
        return Tokenizer.from_str(json.dumps(content))
    except Exception as error:  # tokenizers raises bare exceptions
        raise ValueError(f"{path} cannot be read ({error}); copy it anew") from error


def _check_bpe(path: Path, content: dict[str, Any]) -> None:
    # Whatever else is there would change the text before or after merging, and with it the coefficients.
    model, split, decoder = (_object(content, name) for name in ("model", "pre_tokenizer", "decoder"))
    expected_and_found = {
        "model.type": ("BPE", model.get("type", "BPE" if "merges" in model else None)),
        "pre_tokenizer": ("ByteLevel", split.get("type")),
        "pre_tokenizer.add_prefix_space": (False, split.get("add_prefix_space", False)),
        "decoder": ("ByteLevel", decoder.get("type")),
        "post_processor": ("ByteLevel", _post_processing(content)),
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


def _post_processing(content: dict[str, Any]) -> str | None:
    found = _object(content, "post_processor")
    # Where there was none, transformers saves a template of the ids and nothing else.
    adds_nothing = found.get("type") == "TemplateProcessing" and found.get("single") == _IDS_ALONE
    return "ByteLevel" if not found or adds_nothing else found.get("type")


def _object(content: dict[str, Any], name: str) -> dict[str, Any]:
    value = content.get(name)
    return value if isinstance(value, dict) else {}


def write_published(folder: Path, bpe: Tokenizer, config: ProcessorConfig) -> None:
    """Write the files so that the published processor and LeRobot's read them, too."""
    transformers_fields = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    for path in _bpe_paths(folder):
        path.parent.mkdir(parents=True, exist_ok=True)
        bpe.save(str(path))
        _write_json(path.with_name(_TRANSFORMERS_FILE), transformers_fields)
    _write_json(folder / PROCESSOR_FILE, config._asdict() | {"processor_class": _PROCESSOR_CLASS})


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
