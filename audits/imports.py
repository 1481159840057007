"""Import the module that a loss is in without all that its package imports besides."""

import importlib.util
import sys
import types
from unittest.mock import MagicMock


def without_init(*packages):
    """Let modules of these packages be imported without running the packages' `__init__`."""
    for name in packages:
        spec = importlib.util.find_spec(name)
        package = types.ModuleType(name)
        package.__path__ = list(spec.submodule_search_locations)
        sys.modules[name] = package


def absent(*modules):
    """Put a stand-in where a library imports what its loss does not use."""
    for name in modules:
        sys.modules[name] = MagicMock()
