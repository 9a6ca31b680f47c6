"""The JSON file in which a tokenizer keeps its fields; what is read back is exactly what that tokenizer writes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FIELDS_FILE = "action_tokenizer.json"


def write_fields(
    folder: Path, kind: str, version: int, fields: Mapping[str, Any], file_name: str = FIELDS_FILE
) -> None:
    """Write fields as JSON; the folder is made where it is missing."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    content = {"kind": kind, "version": version, **fields}
    (folder / file_name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_fields(
    folder: Path, kind: str, version: int, fields: Mapping[str, type], file_name: str = FIELDS_FILE
) -> dict[str, Any]:
    """Read back what `write_fields` wrote.

    Args:
        folder: Folder of the tokenizer.
        kind: Kind that the file must name.
        version: Version that the file must name.
        fields: Type of each further field (`float` also takes a whole number).
        file_name: Name of the file.

    Returns:
        The further fields.

    Raises:
        ValueError: The file is missing or cut short, is of another kind or version, or has a field too many, too few or
            of another type.
    """
    path = Path(folder) / file_name
    content = read_json(path)
    for name, expected in (("kind", kind), ("version", version)):
        if content.get(name) != expected:
            raise ValueError(
                f"{path}: expected {name} {expected!r}, got {content.get(name)!r}; fit it anew with `lerobot-vla "
                "tokenizer fit`, or install the version of lerobot-vla-plugin that wrote it"
            )
    found = content.keys() - {"kind", "version"}
    if found != fields.keys():
        raise ValueError(
            f"{path} is no {kind!r} of version {version}: missing {sorted(fields.keys() - found)}, "
            f"unknown {sorted(found - fields.keys())}; fit the tokenizer anew"
        )
    for name, expected in fields.items():
        if not is_a(content[name], expected):
            raise ValueError(f"{path}: expected {name} to be {expected.__name__}, got {content[name]!r}")
    return {name: content[name] for name in fields}


def read_json(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds.

    Raises:
        ValueError: The file is missing or cut short, or holds something else than an object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"{path} is missing: the folder holds no complete action tokenizer") from error
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, a number of too many digits, too deep an object
        raise ValueError(f"{path} is no JSON ({error}); was the copy cut short?") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content


def is_a(value: Any, expected: type) -> bool:
    """Whether a JSON value is of a type: a whole number is a `float`, too; true and false are no numbers."""
    if expected is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, expected) and (expected is bool or not isinstance(value, bool))
