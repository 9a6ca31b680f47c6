"""The kinds of action tokenizer by name, and loading one whose kind only its folder knows."""

from importlib import import_module
from pathlib import Path

from .protocol import ActionTokenizer
from .tokenizer_files import FIELDS_FILE, read_json

# Module and class of each kind. They are imported when asked for: FAST brings scipy and tokenizers, VQ brings torch.
_CLASSES = {"fast": ("fast", "FastTokenizer"), "bins": ("bins", "BinTokenizer"), "vq": ("vq", "VQTokenizer")}
TOKENIZER_KINDS = tuple(_CLASSES)
TOKENIZER_CLASS_NAMES = {class_name: kind for kind, (_, class_name) in _CLASSES.items()}


def tokenizer_class(kind: str) -> type[ActionTokenizer]:
    """Class of a kind of tokenizer.

    Raises:
        ValueError: There is no such kind.
    """
    if kind not in _CLASSES:
        raise ValueError(f"there is no action tokenizer {kind!r}; there are {', '.join(TOKENIZER_KINDS)}")
    module, class_name = _CLASSES[kind]
    return getattr(import_module(f".{module}", __package__), class_name)


def load_action_tokenizer(folder: Path) -> ActionTokenizer:
    """Load whatever tokenizer a folder holds: one of ours, or a FAST tokenizer in its published layout.

    Raises:
        ValueError: The folder holds no action tokenizer, or one that cannot be read.
    """
    folder = Path(folder)
    path = folder / FIELDS_FILE
    if path.is_file():
        kind = str(read_json(path).get("kind"))
        try:
            found = tokenizer_class(kind)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        return found.load(folder)
    if (folder / "processor_config.json").is_file():
        from .fast import FastTokenizer

        return FastTokenizer.from_published(folder)
    raise ValueError(
        f"expected an action tokenizer in {folder}: neither {FIELDS_FILE} nor a published FAST tokenizer's "
        "processor_config.json is there; `lerobot-vla tokenizer fit` makes one"
    )
