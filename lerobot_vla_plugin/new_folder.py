"""A folder that appears when it is complete, and not at all otherwise."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Fill a folder under another name beside its place; it is moved there at the end, and removed after a failure.

    Args:
        target: The folder to make.

    Yields:
        The folder to write into.

    Raises:
        FileExistsError: `target` exists.
    """
    if target.exists():
        raise FileExistsError(f"{target} exists; name a new folder")
    # Beside the target, so that the last step is a rename.
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    draft.mkdir(parents=True)
    try:
        yield draft
        draft.rename(target)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
