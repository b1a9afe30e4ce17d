"""Where things are: the installed project, and the folders of a user's project root."""

from __future__ import annotations

from pathlib import Path

# The folder that holds spec/, compile/ and inference_code/. A user's project root may be another one.
INSTALLED = Path(__file__).resolve().parent.parent
DATA = Path(__file__).resolve().parent / "data"


def families() -> tuple[str, ...]:
    """The built-in model families: one file each in compile/models/, found by name, never imported."""
    folder = INSTALLED / "compile" / "models"
    return tuple(sorted(file.stem for file in folder.glob("*.py") if not file.stem.startswith("_")))


def family_file(family: str) -> Path:
    """The file that defines a built-in family."""
    return INSTALLED / "compile" / "models" / f"{family}.py"
