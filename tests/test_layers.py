"""Who may import whom: a stage imports only earlier ones, and the analyser never the rule generator."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# A stage may import itself, what stands before it, and what is open to all.
ANALYZER = (
    "wire", "capture", "columns", "flows", "streams", "tls", "connections", "connection_json", "detect", "spool", "tables",
    "frames", "analysis", "profile",
    "pipeline", "report", "crosscheck", "version", "command", "cli", "__main__",
)  # fmt: skip
RULEGEN = ("ir", "lower", "bpf", "backends")
OPEN = ("errors", "limits", "model", "version", "")
# frames.py is named before analysis.py, which loads it only when a DataFrame is asked for.


def imports(path):
    """Modules that a file imports when it is loaded; what a function imports is not loaded with it."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names if node.module == "analyzer")


def stage(module):
    return module.split(".")[1] if "." in module else ""


@pytest.mark.parametrize(
    "path", sorted((ROOT / "analyzer").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT))
)
def test_analyzer_imports_earlier_stages_only(path):
    own = path.relative_to(ROOT / "analyzer").parts[0].removesuffix(".py")
    if own == "__init__":
        return
    for module in imports(path):
        assert not module.startswith("rulegen")
        if module.startswith("analyzer"):
            other = stage(module)
            if other not in OPEN and own not in OPEN:
                assert ANALYZER.index(other) <= ANALYZER.index(own), f"{path.name} imports {module}"


@pytest.mark.parametrize(
    "path",
    sorted(path for folder in RULEGEN for path in (ROOT / "rulegen" / folder).rglob("*.py")),
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_rulegen_imports_earlier_stages_only(path):
    own = path.relative_to(ROOT / "rulegen").parts[0]
    for module in imports(path):
        if module.startswith("rulegen") and (other := stage(module)) not in OPEN:
            assert other in RULEGEN[: RULEGEN.index(own) + 1], f"{path.name} imports {module}"


def test_what_evaluates_programs_knows_nothing_of_what_makes_them():
    for path in (ROOT / "rulegen" / "evaluate").rglob("*.py"):
        for module in imports(path):
            assert stage(module) != "lower", f"{path.name} imports {module}"
            assert not module.startswith("rulegen.bpf") or module == "rulegen.bpf.program"


@pytest.mark.parametrize(
    "path", sorted((ROOT / "rulegen" / "artifacts").glob("*.py")), ids=lambda path: path.name
)
def test_reading_rulesets_back_imports_no_emitter(path):
    """A mistake that emitter and reader shared would agree with itself. It comes before what evaluates."""
    allowed = ("rulegen.artifacts.", "rulegen.errors", "rulegen.bpf.program")
    for module in imports(path):
        assert not module.startswith("analyzer")
        if module.startswith("rulegen"):
            assert f"{module}.".startswith(allowed), f"{path.name} imports {module}"


def test_help_and_rules_load_neither_numpy_nor_pandas():
    import subprocess
    import sys

    code = "import sys, rulegen.cli; print({'numpy', 'pandas', 'pyarrow', 'rich'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "set()"
