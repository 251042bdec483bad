"""Tests mirror the packages: analyzer/tls/records.py is specified by tests/analyzer/tls/test_records.py.

A module without a test file of its own is named below, with the file that specifies it or the reason why there is
nothing to specify. In the folders of PARTED files are parted for their size: there a module needs no row where one of
its folder imports it that is specified.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted(
    path.relative_to(ROOT)
    for package in ("analyzer", "rulegen")
    for path in (ROOT / package).rglob("*.py")
    if path.name != "__init__.py"
)

# fmt: off
SPECIFIED_IN = {
    "analyzer/__main__.py":              "tests/analyzer/test_both_forms.py",
    "analyzer/analysis.py":              "tests/analyzer/test_pipeline.py",
    "analyzer/columns/schema.py":        "tests/analyzer/columns/test_decode.py",
    "analyzer/command.py":               "tests/analyzer/test_cli.py",
    "analyzer/crosscheck/difference.py": "tests/analyzer/crosscheck/test_compare.py",
    "analyzer/profile.py":               "tests/agreement/test_profile.py",
    "analyzer/version.py":               "tests/analyzer/test_cli.py",
    "analyzer/wire/headers.py":          "tests/analyzer/wire/test_fields.py",
    "rulegen/account.py":                "tests/rulegen/test_from_findings.py",
    "rulegen/artifacts/iptables_save.py": "tests/rulegen/artifacts/test_saved.py",
    "rulegen/artifacts/nft_file.py":     "tests/rulegen/artifacts/test_own.py",
    "rulegen/explain.py":                "tests/rulegen/test_cli.py",
    "rulegen/lower/u32.py":              "tests/rulegen/backends/test_iptables.py",
    "rulegen/testbed/live_worker.py":    "tests/rulegen/testbed/test_live.py",
    "rulegen/testbed/worker.py":         "tests/rulegen/testbed/test_replay.py",
}
NOTHING_TO_SPECIFY = {
    "rulegen/evaluate/base.py": "what evaluators and those who ask them exchange",
    "analyzer/errors.py": "exceptions, which the tests of who raises them catch",
    "analyzer/limits.py": "numbers; each is tested where it limits something",
    "analyzer/model.py":  "what a finding is made of",
    "rulegen/errors.py":  "exceptions, which the tests of who raises them catch",
}
# fmt: on
PARTED = ("analyzer/report", "rulegen")
NAMED = SPECIFIED_IN | NOTHING_TO_SPECIFY


def own_test(module: Path) -> Path:
    return ROOT / "tests" / module.parent / f"test_{module.name}"


def imported_by(module: Path) -> set[Path]:
    """The modules of its own folder that a module imports."""
    package = ".".join(module.parent.parts)
    found = set()
    for node in ast.walk(ast.parse((ROOT / module).read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [alias.name for alias in node.names] if node.module == package else []
            names += (
                [node.module.removeprefix(f"{package}.")] if node.module.startswith(f"{package}.") else []
            )
            found |= {module.parent / f"{name}.py" for name in names}
    return {path for path in found if (ROOT / path).is_file()}


@cache
def parts_of_tested() -> set[Path]:
    """Modules of PARTED that a tested module of their folder imports, itself or through such parts."""
    reached = {module for module in MODULES if own_test(module).exists() or module.as_posix() in SPECIFIED_IN}
    while (
        more := {
            part for module in reached for part in imported_by(module) if module.as_posix().startswith(PARTED)
        }
        - reached
    ):
        reached |= more
    return reached


@pytest.mark.parametrize("module", MODULES, ids=Path.as_posix)
def test_a_module_is_specified(module):
    specified = own_test(module).exists() or module in parts_of_tested() or module.as_posix() in NAMED
    assert specified, (
        f"write {own_test(module).relative_to(ROOT)}, or say in {Path(__file__).name} what specifies it"
    )


@pytest.mark.parametrize("module", NAMED)
def test_a_row_names_files_that_exist(module):
    assert (ROOT / module).is_file()
    assert (ROOT / SPECIFIED_IN.get(module, module)).is_file()


def test_a_module_is_named_once():
    assert not SPECIFIED_IN.keys() & NOTHING_TO_SPECIFY.keys()
