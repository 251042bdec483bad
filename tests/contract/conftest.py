"""The lab of the rule generator's tests."""

from tests.rulegen.conftest import bench, lab

__all__ = ["bench", "lab"]
