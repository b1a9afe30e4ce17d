"""An artifact of the project's own server, which needs torch."""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path
from typing import Any

import inference_code
from inference_code.artifact.manifest import FILE_NAME, file_sha256
from tests.inference_code.artifacts import change_manifest, doubling_artifact

HANDLER = """
from inference_code.tasks.tensor import preprocess

def postprocess(outputs, item):
    return {"mode": "LABEL", "doubled": outputs.tolist()}
"""


def packed(folder: Path, label: str, **changes: Any) -> bytes:
    """model.tar.gz with the project's own server and a handler that says which artifact it is of."""
    package = Path(inference_code.__file__).parent
    shutil.copytree(package, folder / "code" / "inference_code", ignore=shutil.ignore_patterns("__pycache__"))
    doubling_artifact(folder, HANDLER.replace("LABEL", label))
    listed = {path.relative_to(folder).as_posix(): file_sha256(path) for path in folder.rglob("*") if path.is_file()}
    del listed[FILE_NAME]
    change_manifest(folder, **{"files": listed, **changes})
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.add(folder, ".")
    return buffer.getvalue()
