"""`lerobot-vla`: help, choice of the command, and what a failing import says."""

import subprocess
import sys
from pathlib import Path

import pytest

from lerobot_vla_cli import COULD_NOT_RUN
from lerobot_vla_cli import main as cli

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Register a command whose module is written here; returns its name."""

    def register(source: str, extra: str | None = None, name: str = "sample") -> str:
        (tmp_path / "sample_command.py").write_text(source)
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, "sample_command", raising=False)
        monkeypatch.setitem(cli.COMMANDS, name, cli.Command("sample_command", "a sample", extra))
        return name

    return register


WORKING = """
def add_arguments(parser):
    parser.add_argument("--code", type=int, default=0)

def run(args):
    return args.code
"""


def test_help_explains_every_command_and_imports_nothing_heavy():
    program = (
        "import sys; from lerobot_vla_cli.main import main\n"
        "try: main(['--help'])\n"
        "finally: print(sorted({'torch', 'numpy', 'lerobot', 'lerobot_vla_plugin'} & set(sys.modules)))"
    )
    finished = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert finished.returncode == 0
    assert finished.stdout.endswith("[]\n")
    for name, command in cli.COMMANDS.items():
        assert name in finished.stdout
        assert command.summary in finished.stdout


def test_the_module_gets_the_options_and_gives_the_exit_code(command):
    assert cli.main([command(WORKING), "--code", "7"]) == 7


def test_arguments_of_the_process_are_the_default(command, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["lerobot-vla", command(WORKING), "--code=3"])
    assert cli.main() == 3


def test_help_of_a_command_shows_its_options(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main([command(WORKING), "--help"])
    assert stopped.value.code == 0
    assert "--code" in capsys.readouterr().out


@pytest.mark.parametrize("argv", [[], ["nonsense"], ["--nonsense"]])
def test_an_unknown_command_names_those_that_exist(argv, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(argv)
    assert stopped.value.code == COULD_NOT_RUN
    assert "COMMAND" in capsys.readouterr().err


@pytest.mark.parametrize(
    "source",
    ["import package_that_is_absent\n", WORKING.replace("return args.code", "import package_that_is_absent")],
    ids=["at import", "at run"],
)
def test_a_missing_extra_is_one_line_with_its_remedy(source, command, capsys):
    assert cli.main([command(source, extra="twin")]) == COULD_NOT_RUN
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert "package_that_is_absent" in said[0]
    assert "pip install 'lerobot_policy_vla_plugin[twin]'" in said[0]


@pytest.mark.parametrize(
    "source",
    ["from json import nonsense", "import lerobot_vla_plugin.nonsense", "raise ImportError('says\\nmore')"],
)
def test_a_broken_installation_is_not_called_a_missing_extra(source, command, capsys):
    assert cli.main([command(source, extra="twin")]) == COULD_NOT_RUN
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert "lerobot-vla check" in said[0]
    assert "pip install" not in said[0]


def test_other_errors_are_not_hidden(command):
    with pytest.raises(ZeroDivisionError):
        cli.main([command(WORKING.replace("return args.code", "1 / 0"))])


def test_interruption_is_no_traceback(command):
    source = WORKING.replace("return args.code", "raise KeyboardInterrupt")
    assert cli.main([command(source)]) == cli.INTERRUPTED


def test_every_command_names_a_module_of_this_distribution():
    for command in cli.COMMANDS.values():
        path = ROOT.joinpath(*command.module.split(".")).with_suffix(".py")
        assert path.is_file(), f"{command.module} is not there"
