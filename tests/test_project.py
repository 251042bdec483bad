"""What the repository promises about itself: versions agree, the lock is complete and names no host."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from analyzer.version import VERSION

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCK = (ROOT / "requirements-dev.lock").read_text()
PINS = re.findall(r"^(\S+)==(\S+)((?: ; .*)?) \\$", LOCK, re.MULTILINE)


def test_the_version_is_the_same_everywhere():
    assert PYPROJECT["project"]["version"] == VERSION
    assert f"## {VERSION}" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize(
    "requirement",
    [
        *PYPROJECT["project"]["dependencies"],
        *PYPROJECT["dependency-groups"]["dev"],
        *PYPROJECT["build-system"]["requires"],
    ],
)
def test_every_dependency_is_locked_at_a_version_that_it_allows(requirement):
    wanted = Requirement(requirement)
    versions = [
        version for name, version, _ in PINS if canonicalize_name(name) == canonicalize_name(wanted.name)
    ]
    assert versions
    assert all(wanted.specifier.contains(version) for version in versions)


def test_every_locked_package_has_hashes_and_the_lock_names_no_host():
    entries = re.split(r"\n(?=\S)", LOCK.strip())
    assert all("--hash=sha256:" in entry for entry in entries if not entry.startswith("#"))
    assert not re.search(r"https?:|--(extra-)?index-url|--find-links", LOCK)


def test_the_readme_shows_what_the_command_prints():
    result = subprocess.run(
        [sys.executable, ROOT / ".ci/readme", "--check"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_the_ci_runs_what_the_readme_says():
    assert "make test" in (ROOT / ".ci/run").read_text()
    readme = (ROOT / "README.md").read_text()
    assert "make demo" in readme
    assert "make test" in readme
