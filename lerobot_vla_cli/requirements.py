"""What this distribution and LeRobot declare that they need, compared with what is installed."""

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from packaging.requirements import Requirement

DISTRIBUTION_NAME = "lerobot_policy_vla_plugin"

# Requirements are followed through these two; what others need is their own business.
_FOLLOWED = (DISTRIBUTION_NAME, "lerobot")
_DEVELOPMENT_EXTRA = "dev"


def install_command(extra: str | None = None) -> str:
    """The command that installs what this distribution needs; what is there already is kept.

    Args:
        extra: An optional extra, for example "twin".
    """
    return f"pip install '{DISTRIBUTION_NAME}[{extra}]'" if extra else f"pip install {DISTRIBUTION_NAME}"


def installed_version(name: str) -> str | None:
    """Version of an installed distribution, None where there is none.

    Args:
        name: Name of the distribution.
    """
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def optional_extras() -> list[str]:
    """Extras of this distribution that a user may want, in alphabetical order."""
    declared = distribution(DISTRIBUTION_NAME).metadata.get_all("Provides-Extra") or []
    return sorted(set(declared) - {_DEVELOPMENT_EXTRA})


def unmet_requirements(name: str = DISTRIBUTION_NAME, extra: str = "") -> list[str]:
    """Requirements of a distribution that are absent or have another version.

    Args:
        name: Name of an installed distribution.
        extra: With one, only what that extra adds.

    Returns:
        One phrase a requirement, for example "mujoco>=3.3 (absent)"; empty if all is there.
    """
    return sorted(set(_unmet(name, extra)))


def _unmet(name: str, extra: str) -> Iterator[str]:
    # Imported late: help needs the names above only, and a broken installation may lack it.
    from packaging.requirements import Requirement

    for requirement in map(Requirement, distribution(name).requires or []):
        if not _applies(requirement, extra):
            continue
        found = installed_version(requirement.name)
        if found is None or not requirement.specifier.contains(found, prereleases=True):
            yield f"{requirement.name}{requirement.specifier} ({'absent' if found is None else f'found {found}'})"
        elif requirement.name in _FOLLOWED:
            for below in requirement.extras if extra else {"", *requirement.extras}:
                yield from _unmet(requirement.name, below)


def _applies(requirement: "Requirement", extra: str) -> bool:
    """Whether a requirement is one of the base (no extra), or one that the extra adds."""
    marker = requirement.marker
    if marker is None or marker.evaluate({"extra": ""}):
        return not extra
    return bool(extra) and marker.evaluate({"extra": extra})
