"""Whether LeRobot finds this plugin.

LeRobot imports every installed distribution whose metadata name starts with "lerobot_policy_", as a module of exactly
that name. A name spelt with hyphens is passed over in silence, and a failing import is logged and swallowed.
"""

import importlib
import importlib.metadata
import json
import re
import traceback
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

from lerobot_vla_cli.requirements import DISTRIBUTION_NAME

PACKAGE_NAME = "lerobot_vla_plugin"
_REINSTALL = "pip install --force-reinstall --no-deps"


@dataclass(frozen=True)
class Problem:
    """Something that keeps the plugin from working.

    Attributes:
        message: What was expected and what was found.
        remedy: What to do about it.
        details: Longer text, such as a traceback.
    """

    message: str
    remedy: str
    details: str = ""


@dataclass(frozen=True, order=True)
class InstalledCopy:
    """Metadata of this distribution somewhere on Python's path.

    Attributes:
        name: As LeRobot compares it, not normalised.
        version: Its version.
        root: Folder whose modules it stands for; the source folder of an editable install.
    """

    name: str
    version: str
    root: Path

    def __str__(self) -> str:
        return f"{self.name} {self.version} at {self.root}"


def installed_copies() -> list[InstalledCopy]:
    """Every copy of this distribution that Python sees, whichever way its name is spelt."""
    copies = {
        InstalledCopy(name, found.version, _root(found))
        for found in importlib.metadata.distributions()
        if (name := found.metadata.get("Name")) and _normalized(name) == _normalized(DISTRIBUTION_NAME)
    }
    return sorted(copies)


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _root(found: importlib.metadata.Distribution) -> Path:
    origin = json.loads(found.read_text("direct_url.json") or "{}")
    if origin.get("dir_info", {}).get("editable"):
        return Path(url2pathname(urlparse(origin["url"]).path)).resolve()
    return Path(str(found.locate_file(""))).resolve()


def metadata_problems(copies: list[InstalledCopy]) -> list[Problem]:
    """What is wrong with the metadata by which LeRobot finds plugins.

    Args:
        copies: As `installed_copies` returns them.
    """
    if not copies:
        message = f"no distribution named {DISTRIBUTION_NAME} is installed, so LeRobot does not look for the plugin"
        return [Problem(message, "pip install . (or pip install -e .) in the folder of its pyproject.toml")]
    problems = []
    if all(copy.name != DISTRIBUTION_NAME for copy in copies):
        names = ", ".join(sorted({copy.name for copy in copies}))
        message = f"expected a distribution named {DISTRIBUTION_NAME}, got {names}: LeRobot passes it over"
        problems.append(Problem(message, f"{_REINSTALL} of a wheel built with setuptools>=77"))
    # The checkout of an editable install holds metadata of its own beside those in site-packages: one copy, not two.
    if len({(copy.root, copy.version) for copy in copies}) > 1:
        message = f"expected one copy of {DISTRIBUTION_NAME}, got {len(copies)}: {'; '.join(map(str, copies))}"
        remedy = f"pip uninstall {DISTRIBUTION_NAME} until none is left, delete stale *.egg-info, install once"
        problems.append(Problem(message, remedy))
    return problems


def import_failure() -> Problem | None:
    """Import the plugin as LeRobot does, and say why that fails."""
    try:
        importlib.import_module(DISTRIBUTION_NAME)
        importlib.import_module(PACKAGE_NAME)
    except Exception as error:
        message = f"importing {DISTRIBUTION_NAME} fails: {type(error).__name__}: {error}"
        remedy = "mend the cause below; LeRobot logs this error and goes on without the plugin"
        return Problem(message, remedy, "".join(traceback.format_exception(error)))
    return None


def location_problems(copies: list[InstalledCopy]) -> list[Problem]:
    """Whether the imported plugin is an installed one.

    Args:
        copies: As `installed_copies` returns them.
    """
    imported_from = Path(str(importlib.import_module(PACKAGE_NAME).__file__)).resolve().parents[1]
    roots = sorted({copy.root for copy in copies})
    if not roots or imported_from in roots:
        return []
    expected = ", ".join(map(str, roots))
    message = f"expected {PACKAGE_NAME} from {expected}, Python imports it from {imported_from}"
    return [Problem(message, f"leave that folder or take it off PYTHONPATH, or {_REINSTALL} -e {imported_from}")]
