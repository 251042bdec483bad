"""The uncompiled form of a kernel, so that a test can hold it and the compiled form equal."""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType


def load_uncompiled(module_name: str) -> ModuleType:
    """Load a module from its .py file, even where a compiled form beside it would win an import.

    The module is found under `module_name + "_uncompiled"` in sys.modules and is loaded once.
    """
    name = f"{module_name}_uncompiled"
    if name not in sys.modules:
        package_name, _, stem = module_name.rpartition(".")
        package = importlib.import_module(package_name)
        path = Path(package.__path__[0]) / f"{stem}.py"
        spec = importlib.util.spec_from_loader(name, SourceFileLoader(name, str(path)))
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]
