"""A user's own rewrites, from a Python file."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from compile.lowering.rewrite import FunctionRewrite, LoweringError, ModuleRewrite, Rewrite

_BASES = (Rewrite, FunctionRewrite, ModuleRewrite)


def load_rewrites(path: Path) -> list[Rewrite]:
    """One instance of each rewrite class that the file defines, in the order of the file.

    The file is Python and is run. Raises LoweringError when it is missing, fails, or defines none.
    """
    spec = importlib.util.spec_from_file_location(f"user_rewrites_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise LoweringError(f"{path}: no Python file; give the path of a file that defines Rewrite classes")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise LoweringError(f"{path}: cannot be run: {type(error).__name__}: {error}") from error
    classes = [
        item
        for item in vars(module).values()
        if isinstance(item, type)
        and issubclass(item, Rewrite)
        and item not in _BASES
        and item.__module__ == module.__name__
    ]
    if not classes:
        raise LoweringError(f"{path}: defines no subclass of FunctionRewrite or ModuleRewrite")
    rewrites = [item() for item in classes]
    for rewrite in rewrites:
        missing = [name for name in ("name", "mechanism", "why", "cost") if not hasattr(rewrite, name)]
        if isinstance(rewrite, FunctionRewrite) and not hasattr(rewrite, "operators"):
            missing.append("operators")
        if missing:
            raise LoweringError(f"{path}: {type(rewrite).__name__} does not define its {', '.join(missing)}")
    return rewrites
