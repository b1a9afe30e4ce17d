"""Where things are: the installed project, and the folders of a user's project root."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

# The folder that holds endpoint_spec/, compile/ and inference_code/. A user's project root may be another one.
INSTALLED = Path(__file__).resolve().parent.parent
DATA = Path(__file__).resolve().parent / "data"


def families() -> tuple[str, ...]:
    """The built-in model families: one file each in compile/models/, found by name, never imported."""
    folder = INSTALLED / "compile" / "models"
    return tuple(sorted(file.stem for file in folder.glob("*.py") if not file.stem.startswith("_")))


def family_file(family: str) -> Path:
    """The file that defines a built-in family."""
    return INSTALLED / "compile" / "models" / f"{family}.py"


@functools.cache
def rewrites() -> tuple[str, ...]:
    """The switches of lowering: names of the built-in rewrites, read from compile/lowering/ without importing it."""
    folder = INSTALLED / "compile" / "lowering"
    names = {_assigned(_body(folder / "recorder.py"), "FOLD")}
    for file in folder.glob("rewrites/*.py"):
        for node in _body(file):
            if isinstance(node, ast.ClassDef):
                names.add(_assigned(node.body, "name"))
    return tuple(sorted(names - {""}))


def _body(file: Path) -> list[ast.stmt]:
    return ast.parse(file.read_text(encoding="utf-8")).body


def _assigned(body: list[ast.stmt], name: str) -> str:
    """The text that a body assigns to a name; empty when it assigns none."""
    for node in body:
        if isinstance(node, ast.Assign) and any(isinstance(at, ast.Name) and at.id == name for at in node.targets):
            return str(ast.literal_eval(node.value))
    return ""
