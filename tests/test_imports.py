"""Who may import whom, read from the source, and what importing the plugin costs and brings."""

import ast
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "lerobot_vla_plugin"
CLI = "lerobot_vla_cli"
POSIX_ONLY = {"pty", "tty", "termios", "fcntl", "resource", "pwd", "grp"}


@dataclass(frozen=True)
class Import:
    """One imported name: `from a import b` counts as `a.b`, because b may be a module."""

    importer: str
    imported: str
    line: int
    in_function: bool
    for_types_only: bool

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.imported}"


class ImportCollector(ast.NodeVisitor):
    """Collects the imports of one module, relative ones resolved."""

    def __init__(self, module: str, is_package: bool):
        self.module = module
        self.package = module if is_package else module.rpartition(".")[0]
        self.imports: list[Import] = []
        self.function_depth = 0
        self.types_depth = 0

    def visit_FunctionDef(self, node):
        self.function_depth += 1
        self.generic_visit(node)
        self.function_depth -= 1

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815

    def visit_If(self, node):
        if ast.unparse(node.test) != "TYPE_CHECKING":
            return self.generic_visit(node)
        self.types_depth += 1
        for statement in node.body:
            self.visit(statement)
        self.types_depth -= 1
        for statement in node.orelse:
            self.visit(statement)

    def visit_Import(self, node):
        for alias in node.names:
            self._add(alias.name, node)

    def visit_ImportFrom(self, node):
        base = node.module or ""
        if node.level:
            parents = self.package.split(".")
            base = ".".join([*parents[: len(parents) - node.level + 1], *filter(None, [base])])
        for alias in node.names:
            self._add(f"{base}.{alias.name}", node)

    def _add(self, imported: str, node: ast.stmt):
        position = (node.lineno, self.function_depth > 0, self.types_depth > 0)
        self.imports.append(Import(self.module, imported, *position))


def imports_of(module: str, source: str, is_package: bool = False) -> list[Import]:
    collector = ImportCollector(module, is_package)
    collector.visit(ast.parse(source))
    return collector.imports


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


SOURCES = {module_name(path): path for folder in (PACKAGE, CLI) for path in sorted((ROOT / folder).rglob("*.py"))}
IMPORTS = [
    found
    for module, path in SOURCES.items()
    for found in imports_of(module, path.read_text(encoding="utf-8"), path.name == "__init__.py")
]


def within(name: str, *packages: str) -> bool:
    """Whether a dotted name is one of the packages or lies in it."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def offences(importer: str, forbidden: tuple[str, ...], allowed: tuple[str, ...] = ()) -> list[str]:
    """Imports by a package (of ours, dotted) of what it must not know; what serves type checkers only is free."""
    importer = f"{PACKAGE}.{importer}" if importer else PACKAGE
    return [
        str(found)
        for found in IMPORTS
        if within(found.importer, importer)
        and within(found.imported, *forbidden)
        and not within(found.imported, *allowed)
        and not found.for_types_only
    ]


def ours(*names: str) -> tuple[str, ...]:
    return tuple(f"{PACKAGE}.{name}" for name in names)


def test_collector_resolves_every_spelling():
    source = """
import torch.nn as nn
from . import sibling
from ..arms.joints import ticks_to_degrees
if TYPE_CHECKING:
    from lerobot.robots import Robot
def f():
    import pty
"""
    found = {i.imported: (i.in_function, i.for_types_only) for i in imports_of("p.twin.bus", source)}
    assert found == {
        "torch.nn": (False, False),
        "p.twin.sibling": (False, False),
        "p.arms.joints.ticks_to_degrees": (False, False),
        "lerobot.robots.Robot": (False, True),
        "pty": (True, False),
    }
    assert imports_of("p.twin", "from . import bus", is_package=True)[0].imported == "p.twin.bus"


def test_the_rules_look_at_real_modules():
    looked_at = ("models.backbone", "arms.joints", "arms.calibration", "twin.bus", "twin.world", "configuration_vla")
    for module in ours(*looked_at):
        assert module in SOURCES


MODELS_MAY_NOT = ("utils.constants", "robots", "teleoperators", "datasets", "processor", "configs", "cameras", "motors")


@pytest.mark.parametrize(
    ("importer", "forbidden", "allowed"),
    [
        ("models", (PACKAGE,), ours("models")),
        ("models", tuple(f"lerobot.{name}" for name in MODELS_MAY_NOT), ()),
        ("twin", (PACKAGE,), ours("twin", "arms.joints", "arms.calibration")),
        ("twin", ("torch", "transformers"), ()),
        ("arms", ours("models", "action_tokenizers", "modeling_vla", "processor_vla", "envs"), ()),
        ("envs", (PACKAGE,), ours("envs", "arms", "twin")),
        ("arms.joints", ("torch", "lerobot", "transformers"), ()),
        ("arms.calibration", ("torch", "lerobot", "transformers"), ()),
        ("action_tokenizers", (PACKAGE, "lerobot"), ours("action_tokenizers")),
        ("configuration_vla", ("torch", "transformers"), ()),
        ("config_base", ("torch", "transformers"), ()),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_package_knows_only_what_it_may(importer, forbidden, allowed):
    assert offences(importer, forbidden, allowed) == []


def test_tokenizers_import_no_torch_but_the_vector_quantiser():
    found = offences("action_tokenizers", ("torch",))
    assert [line for line in found if not re.match(rf"{PACKAGE}\.action_tokenizers\.vq(_\w+)?:", line)] == []


def test_flow_matching_and_token_decoding_do_not_know_each_other():
    assert offences("models.flow_matching", ours("models.token_decoding")) == []
    assert offences("models.token_decoding", ours("models.flow_matching")) == []


def test_only_functions_import_what_windows_lacks():
    eager = [str(i) for i in IMPORTS if i.imported.split(".")[0] in POSIX_ONLY and not i.in_function]
    assert eager == []


def test_the_physics_knows_no_servo_and_no_person():
    """The world moves by torques; who decides on them, over which wire, is not its business."""
    physics = ("arm_model", "so101_model", "koch_model", "stage", "scenes", "motors", "world_model", "world", "judge")
    allowed = ours(*(f"twin.{name}" for name in (*physics, "mesh_thinning")), "arms.joints")
    for name in physics:
        assert offences(f"twin.{name}", (PACKAGE,), allowed) == []


@pytest.mark.parametrize("package", ["mujoco", "mink", "scipy", "cv2", "zmq", "qpsolvers"])
def test_the_twin_imports_what_it_may_lack_in_functions_only(package):
    """Its modules are imported by commands that must say which extra to install."""
    twin = [i for i in IMPORTS if within(i.importer, f"{PACKAGE}.twin") and within(i.imported, package)]
    eager = [str(i) for i in twin if not i.in_function and not i.for_types_only]
    assert [line for line in eager if not line.startswith(f"{PACKAGE}.twin.drawing:")] == []


def test_the_command_line_imports_the_plugin_by_name_only():
    """Else help would be slow, and `check` would die of the failure that it is to explain."""
    cli = [i for i in IMPORTS if within(i.importer, CLI)]
    assert [str(i) for i in cli if within(i.imported, PACKAGE)] == []
    heavy = [i for i in cli if within(i.imported, "lerobot", "torch", "transformers", "numpy", "packaging")]
    assert [str(i) for i in heavy if not i.in_function and not i.for_types_only] == []


def test_no_code_of_strangers_is_run():
    assert [str(i) for i in IMPORTS if i.imported.split(".")[0] in {"pickle", "cloudpickle", "dill", "joblib"}] == []
    for module, path in SOURCES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword):
                assert node.arg not in ("trust_remote_code", "allow_pickle"), f"{module}:{node.value.lineno}"
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in ("torch.load", "eval", "exec"), f"{module}:{node.lineno}"


MEASURE_IMPORT = """
import json, sys, time
import lerobot.configs, lerobot.processor, lerobot.robots, lerobot.envs

before = set(sys.modules)
start = time.process_time()
import lerobot_vla_plugin
seconds = time.process_time() - start
added = sorted(set(sys.modules) - before)

from lerobot.configs import PreTrainedConfig
from lerobot.processor import ProcessorStepRegistry
policies, steps = list(PreTrainedConfig.get_known_choices()), ProcessorStepRegistry.list()
print(json.dumps({"seconds": seconds, "added": added, "policies": policies, "steps": steps}))
"""


@pytest.fixture(scope="module")
def fresh_import() -> dict:
    """What `import lerobot_vla_plugin` does in a process that has imported what every LeRobot command imports."""
    command = [sys.executable, "-c", MEASURE_IMPORT]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout.splitlines()[-1])


def test_importing_the_plugin_registers_everything(fresh_import):
    assert {"vla_flow", "vla_fast"} <= set(fresh_import["policies"])
    assert "vla_task_tokenizer" in fresh_import["steps"]


def test_importing_the_plugin_brings_no_model_code(fresh_import):
    added = [name for name in fresh_import["added"] if within(name, PACKAGE)]
    assert added, "the measured process did not import the plugin"
    code = ours("modeling_vla", "policy_base", "models", "twin", "pretrained", "vision_cache", "envs.physical_arm")
    assert [name for name in added if within(name, *code)] == []
    assert [name for name in fresh_import["added"] if within(name, "transformers", "peft", "datasets")] == []


def test_importing_the_plugin_costs_at_most_a_second(fresh_import):
    """Processor time: other processes on the machine do not lengthen it."""
    assert fresh_import["seconds"] < 1.0
