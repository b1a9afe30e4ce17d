"""Make a Triton model repository of an unpacked artifact:

    python -m inference_code.adapters.triton --model-dir DIR --to REPOSITORY [--name NAME]

REPOSITORY gets NAME/config.pbtxt, NAME/1/model.py and NAME/1/artifact, the artifact with its code; nothing else of this
project is needed to serve it (`tritonserver --model-repository=REPOSITORY`).
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from inference_code.artifact.manifest import FILE_NAME, ManifestError, read

# One request is one body in, one body out; batches form in our scheduler, so Triton's own batching stays off.
CONFIG = """\
name: "{name}"
backend: "python"
max_batch_size: 0
input [ {{ name: "body" data_type: TYPE_UINT8 dims: [ -1 ] }} ]
output [
  {{ name: "body" data_type: TYPE_UINT8 dims: [ -1 ] }},
  {{ name: "content_type" data_type: TYPE_STRING dims: [ 1 ] }}
]
instance_group [ {{ count: 1 kind: KIND_CPU }} ]
"""
MODEL = '''\
"""Triton's python backend looks for TritonPythonModel here; the code is the artifact's own."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "artifact" / "code"))

from inference_code.adapters.triton.model import TritonPythonModel  # noqa: E402

__all__ = ["TritonPythonModel"]
'''


def write_repository(model_dir: Path, repository: Path, name: str) -> Path:
    """The folder of the model that was made in `repository`. Raises ManifestError, and FileExistsError."""
    read(model_dir)
    made = repository / name
    if made.exists():
        raise FileExistsError(made)
    unfinished = repository / f".{name}.unfinished"  # Triton passes over names that begin with a dot
    shutil.rmtree(unfinished, ignore_errors=True)
    version = unfinished / "1"
    version.mkdir(parents=True)
    shutil.copytree(model_dir, version / "artifact", ignore=shutil.ignore_patterns("__pycache__"))
    (version / "model.py").write_text(MODEL)
    (unfinished / "config.pbtxt").write_text(CONFIG.format(name=name))
    unfinished.rename(made)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """0: made; 1: the artifact cannot be read or the place is taken; 2: wrong use."""
    parser = argparse.ArgumentParser(
        prog="python -m inference_code.adapters.triton",
        description="Make a Triton model repository of an unpacked artifact.",
    )
    parser.add_argument("--model-dir", required=True, type=Path, metavar="DIR", help=f"the folder of {FILE_NAME}")
    parser.add_argument("--to", required=True, type=Path, metavar="REPOSITORY", help="made where it is not there")
    parser.add_argument("--name", default="model", help="of the model in Triton; default: %(default)s")
    options = parser.parse_args(arguments)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}", options.name):
        parser.error(f"--name is {options.name!r}; letters, digits, - and _, at most 63")
    try:
        made = write_repository(options.model_dir, options.to, options.name)
    except ManifestError as error:
        print(f"{error}", file=sys.stderr)  # noqa: T201
        return 1
    except FileExistsError:
        print(f"{options.to / options.name} is there already; remove it or choose another --name", file=sys.stderr)  # noqa: T201
        return 1
    print(made)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
