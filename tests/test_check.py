"""`lerobot-vla check` against installations that are broken in one way each."""

import json
import sys
from pathlib import Path

import pytest

from lerobot_vla_cli import COULD_NOT_RUN, FINE, PROBLEMS_FOUND, check, discovery, requirements
from lerobot_vla_cli import main as cli

ROOT = Path(__file__).resolve().parents[1]
NAME = requirements.DISTRIBUTION_NAME


def write_metadata(
    folder: Path, name: str = NAME, version: str = "0.1.0", requires: tuple[str, ...] = (), source: Path | None = None
) -> None:
    """Install a distribution's metadata, nothing else, into a folder; editable if a source folder is given."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    lines = ["Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}", "Provides-Extra: twin"]
    lines += ["Provides-Extra: dev", *(f"Requires-Dist: {line}" for line in requires)]
    (info / "METADATA").write_text("\n".join(lines) + "\n")
    if source is not None:
        origin = {"url": source.as_uri(), "dir_info": {"editable": True}}
        (info / "direct_url.json").write_text(json.dumps(origin))


@pytest.fixture
def site(tmp_path, monkeypatch) -> Path:
    """An empty folder that stands for site-packages, alone on Python's path."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.setattr(sys, "path", [str(folder)])
    return folder


@pytest.fixture
def broken_plugin(tmp_path, monkeypatch):
    """A shim in front of the real one, whose import fails three calls deep."""
    (tmp_path / "culprit.py").write_text("def load():\n    import package_that_is_absent\n")
    (tmp_path / f"{NAME}.py").write_text("import culprit\nculprit.load()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, NAME, raising=False)


def messages(problems: list[discovery.Problem]) -> str:
    assert all(problem.remedy for problem in problems)
    return "\n".join(problem.message for problem in problems)


def test_this_installation_is_fine(capsys):
    assert cli.main(["check", "--json"]) == FINE
    report = json.loads(capsys.readouterr().out)
    assert report["problems"] == []
    assert "vla_flow" in report["registered"]["policies"]
    assert "vla_task_tokenizer" in report["registered"]["processor_steps"]
    assert set(report["versions"]) == {"python", NAME, "lerobot", "torch", "transformers"}
    assert {"so101", "koch", "twin"} <= set(report["extras"])
    assert "dev" not in report["extras"]


def test_a_plugin_that_fails_to_import_is_reported_with_its_cause(broken_plugin, capsys):
    assert cli.main(["check"]) == PROBLEMS_FOUND
    said = capsys.readouterr().out
    assert "ModuleNotFoundError: No module named 'package_that_is_absent'" in said
    assert "culprit.py" in said
    assert "none" in next(line for line in said.splitlines() if line.startswith("policies"))


def test_a_plugin_that_registers_nothing_is_a_problem():
    problems = check._registry_problems(check.Registered([], []))
    assert "no policy" in messages(problems)


def test_a_policy_whose_model_fails_to_import_is_a_problem(monkeypatch):
    monkeypatch.setitem(sys.modules, "lerobot_vla_plugin.modeling_vla", None)
    (problem,) = check._registry_problems(check.Registered(["vla_flow"], []))
    assert "vla_flow" in problem.message
    assert problem.details


def test_no_distribution(site):
    assert discovery.installed_copies() == []
    assert f"no distribution named {NAME}" in messages(discovery.metadata_problems([]))


def test_a_hyphenated_name_is_passed_over_by_lerobot(site):
    write_metadata(site, name="lerobot-policy-vla-plugin")
    said = messages(discovery.metadata_problems(discovery.installed_copies()))
    assert f"expected a distribution named {NAME}, got lerobot-policy-vla-plugin" in said


def test_two_versions_in_one_folder(site):
    write_metadata(site, version="0.0.9")
    write_metadata(site, version="0.1.0")
    said = messages(discovery.metadata_problems(discovery.installed_copies()))
    assert "0.0.9" in said
    assert "0.1.0" in said


def test_a_stale_copy_elsewhere(site, tmp_path):
    write_metadata(site)
    write_metadata(tmp_path / "old checkout")
    sys.path.append(str(tmp_path / "old checkout"))
    said = messages(discovery.metadata_problems(discovery.installed_copies()))
    assert "expected one copy" in said
    assert "old checkout" in said


def test_the_two_metadata_folders_of_an_editable_install_are_one_copy(site, tmp_path):
    checkout = tmp_path / "check out"  # a space, which the URL in the metadata escapes
    write_metadata(checkout)
    write_metadata(site, source=checkout)
    sys.path.insert(0, str(checkout))
    (copy,) = discovery.installed_copies()
    assert copy.root == checkout.resolve()
    assert discovery.metadata_problems([copy]) == []


def test_another_copy_answers_the_import(tmp_path):
    copies = [discovery.InstalledCopy(NAME, "0.1.0", tmp_path)]
    said = messages(discovery.location_problems(copies))
    assert str(tmp_path) in said
    assert str(ROOT) in said
    assert discovery.location_problems([*copies, discovery.InstalledCopy(NAME, "0.1.0", ROOT)]) == []


def test_an_unsupported_lerobot_is_a_problem_with_what_was_found(site):
    write_metadata(site, requires=("lerobot>=0.6.1,<0.7",))
    write_metadata(site, name="lerobot", version="0.5.1")
    (problem,) = check._requirement_problems(discovery.installed_copies())
    assert "<0.7,>=0.6.1 (found 0.5.1)" in problem.message
    assert "pip install" in problem.remedy


def test_requirements_are_followed_through_lerobots_extras(site):
    write_metadata(site, requires=("lerobot[dataset]>=0.6.1", "lerobot[feetech]; extra == 'twin'"))
    write_metadata(
        site,
        name="lerobot",
        version="0.6.1",
        requires=(
            "torch>=2.7",
            "pandas; extra == 'dataset'",
            "never; sys_platform == 'nowhere' and extra == 'dataset'",
            "lerobot[serial]; extra == 'feetech'",
            "pyserial<4; extra == 'serial'",
            "nothing; extra == 'other'",
        ),
    )
    write_metadata(site, name="pyserial", version="4.1")
    assert requirements.unmet_requirements() == ["pandas (absent)", "torch>=2.7 (absent)"]
    assert requirements.unmet_requirements(extra="twin") == ["pyserial<4 (found 4.1)"]


def test_a_missing_extra_is_listed_with_its_remedy_and_is_no_problem(monkeypatch, capsys):
    real = requirements.installed_version
    monkeypatch.setattr(requirements, "installed_version", lambda name: None if name == "mujoco" else real(name))
    assert cli.main(["check"]) == FINE
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("extra twin"))
    assert "mujoco" in line
    assert "pip install 'lerobot_policy_vla_plugin[twin]'" in line


def test_video_decoder_without_ffmpeg_and_without_any(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    assert check._video().startswith("pyav")
    assert "ffmpeg" in check._video()
    monkeypatch.setitem(sys.modules, "av", None)
    assert check._video().startswith("none")


def test_a_check_that_breaks_off_does_not_pass_for_a_result(monkeypatch, capsys):
    monkeypatch.setattr(check, "installed_copies", lambda: 1 / 0)
    assert cli.main(["check"]) == COULD_NOT_RUN
    said = capsys.readouterr()
    assert "ZeroDivisionError" in said.err
    assert said.out == ""
