"""TorchScript archives whose bytes depend only on the graph and its weights.

`torch.jit.save` writes a zip with the name of the output file as its root, a .debug_pkl beside each source file
(absolute paths of Python files and line numbers), a serialization id, and class names that carry a counter of the
process (`___torch_mangle_130`). None of them matters for loading or running. `save` writes the same archive without
them; entries stay uncompressed and aligned, as torch's own reader likes them.
"""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path

import torch

from compile.errors import CompileError

ROOT = "graph"
# torch aligns tensor data to 64 bytes (caffe2/serialize/inline_container.h, kFieldAlignment).
_ALIGNMENT = 64
_LOCAL_HEADER_BYTES = 30
_MANGLED = re.compile(rb"\.___torch_mangle_\d+")
_MANGLED_PATH = re.compile(r"/___torch_mangle_\d+")
_DROPPED = (".debug_pkl", "/.data/serialization_id")
# The oldest moment that a zip can hold.
_EPOCH = (1980, 1, 1, 0, 0, 0)


def save(module: torch.jit.ScriptModule, path: Path) -> None:
    """Writes a frozen ScriptModule canonically. Raises CompileError if it still has submodules (freeze it first)."""
    buffer = io.BytesIO()
    torch.jit.save(module, buffer)
    path.parent.mkdir(parents=True, exist_ok=True)
    rewrite(buffer, path)


def rewrite(source: io.BytesIO | Path, path: Path) -> None:
    """Rewrites a TorchScript archive of one class without what changes from process to process."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as new:
        names = [name for name in old.namelist() if not name.endswith(_DROPPED)]
        sources = [name for name in names if name.endswith(".py")]
        if len(sources) > 1:
            raise CompileError(
                f"The traced graph still has {len(sources)} classes, so its names cannot be made reproducible.",
                "Freeze it (torch.jit.freeze) before saving.",
            )
        for name in names:
            data = old.read(name)
            canonical = ROOT + name[name.index("/") :]
            if name.endswith((".py", ".pkl")):
                data = _MANGLED.sub(b"", data)
                # code/__torch__/pkg/___torch_mangle_3.py holds classes of pkg: it becomes code/__torch__/pkg.py
                canonical = _MANGLED_PATH.sub("", canonical)
            _store(new, canonical, data)


def strip(source: Path, path: Path) -> None:
    """Copies a TorchScript archive without traces of the machine that wrote it; class names stay as they are.

    For graphs of a Neuron compiler, whose classes belong to its runtime and cannot be frozen away.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as new:
        for name in old.namelist():
            if not name.endswith(_DROPPED):
                _store(new, name, old.read(name))


def _store(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    info = zipfile.ZipInfo(name, _EPOCH)
    info.create_system = 3
    info.external_attr = 0o644 << 16
    # An extra field pads the local header so that the data starts at a multiple of 64 bytes.
    start = archive.start_dir + _LOCAL_HEADER_BYTES + len(name.encode()) + 4
    padding = -start % _ALIGNMENT
    info.extra = b"FB" + padding.to_bytes(2, "little") + b"Z" * padding
    archive.writestr(info, data)
