"""What is shipped: a wheel built from the source distribution, and LeRobot finding the plugin in nothing but that."""

import importlib.resources
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = ("lerobot_vla_cli", "lerobot_vla_plugin")
SOURCES = (*PACKAGES, "calibration", "lerobot_policy_vla_plugin.py", "pyproject.toml", "README.md", "LICENSE")


def execute(*command: str, cwd: Path, **environment: str) -> str:
    """Run a command; its output, or a failure that shows it."""
    finished = subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, timeout=200, check=False
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, by way of the source distribution; built from a copy, so that the checkout stays clean."""
    source, output = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    # The installed setuptools, so that nothing is downloaded.
    execute(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(output), cwd=source)
    (built,) = output.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def contents(wheel) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def site(wheel, tmp_path_factory) -> Path:
    """A folder into which the wheel is installed."""
    target = tmp_path_factory.mktemp("site")
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps")
    execute(*pip, "--target", str(target), str(wheel), cwd=target)
    return target


def in_fresh_process(program: str, site: Path) -> dict:
    """Run a program that prints JSON, with our code from the installed wheel only.

    Without the site module no .pth file is read, so that an editable install of this checkout is out of reach.
    """
    libraries = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    path = os.pathsep.join([str(site), *libraries])
    said = execute(sys.executable, "-S", "-c", program, cwd=site, PYTHONPATH=path, HF_HUB_OFFLINE="1")
    return json.loads(said.splitlines()[-1])


def test_the_name_is_one_that_lerobot_looks_for(wheel, contents):
    assert wheel.name.startswith("lerobot_policy_vla_plugin-")
    (metadata,) = (name for name in contents if name.endswith(".dist-info/METADATA"))
    with zipfile.ZipFile(wheel) as archive:
        assert "Name: lerobot_policy_vla_plugin" in archive.read(metadata).decode().splitlines()


def test_the_wheel_holds_every_module(contents):
    modules = {path.relative_to(ROOT).as_posix() for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    assert {"lerobot_policy_vla_plugin.py", *modules} - contents == set()


def test_the_wheel_holds_the_calibration_files_and_the_licence(contents):
    files = {path.relative_to(ROOT / "calibration").as_posix() for path in (ROOT / "calibration").rglob("*.json")}
    assert files
    assert {f"lerobot_vla_plugin/calibration_files/{name}" for name in files} - contents == set()
    assert [name for name in contents if name.endswith("licenses/LICENSE")]


def test_the_wheel_holds_nothing_else(contents):
    ours = (*PACKAGES, "lerobot_policy_vla_plugin")
    assert [name for name in contents if not name.startswith(ours)] == []
    assert [name for name in contents if name.endswith((".pyc", ".so"))] == []


DISCOVER = """
import importlib.resources, json
from lerobot.utils.import_utils import register_third_party_plugins
register_third_party_plugins()
import lerobot_vla_plugin
from lerobot.policies.factory import get_policy_class
calibration = importlib.resources.files("lerobot_vla_plugin.calibration_files")
print(json.dumps({
    "from": lerobot_vla_plugin.__file__,
    "policy": get_policy_class("vla_flow").__name__,
    "joints": list(json.loads((calibration / "so_follower" / "so101_follower.json").read_text())),
}))
"""


def test_lerobot_finds_the_plugin_in_the_installed_wheel(site):
    found = in_fresh_process(DISCOVER, site)
    assert Path(found["from"]).is_relative_to(site)
    assert found["policy"] == "VLAFlowPolicy"
    assert found["joints"][-1] == "gripper"
    assert (site / "bin" / "lerobot-vla").exists() or (site / "bin" / "lerobot-vla.exe").exists()


def test_this_installation_finds_the_calibration_files():
    """In an editable install they lie outside the package; only the mapping in pyproject.toml leads there."""
    folder = importlib.resources.files("lerobot_vla_plugin.calibration_files") / "so_leader"
    assert (folder / "so101_leader.json").is_file()


def test_no_requirement_brings_what_needs_a_compiler():
    """LeRobot's `hardware` and `core-scripts` bring pynput, whose evdev is compiled at installation on Linux."""
    project = PYPROJECT["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    lines = " ".join(line for group in groups for line in group)
    for unwanted in ("hardware", "core-scripts", "viz", "pynput"):
        assert unwanted not in lines


def test_ci_runs_the_command_of_the_readme():
    (line,) = (line for line in (ROOT / ".ci" / "run").read_text().splitlines() if line.startswith("README_COMMAND="))
    command = line.removeprefix("README_COMMAND=").strip("'")
    assert command in (ROOT / "README.md").read_text().splitlines()
