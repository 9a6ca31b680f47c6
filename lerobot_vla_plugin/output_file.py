"""The file that `--output` names, looked at before the work is done."""

from pathlib import Path


def check_output(path: Path, suffix: str) -> None:
    """Refuse what could not be written in the end.

    Args:
        path: The file.
        suffix: How its name has to end.

    Raises:
        ValueError: It ends otherwise.
        FileNotFoundError: There is no folder for it.
        IsADirectoryError: It is a folder itself.
    """
    if path.suffix != suffix:
        raise ValueError(f"--output={path}: expected a file name that ends with {suffix}")
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"--output={path}: there is no folder {path.absolute().parent}")
    if path.is_dir():
        raise IsADirectoryError(f"--output={path}: expected a file, this is a folder")
