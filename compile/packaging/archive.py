"""model.tar.gz: the folder of an artifact, and one archive of it whose bytes depend on nothing but its content."""

from __future__ import annotations

import dataclasses
import io
import shutil
import tarfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import inference_code
from compile.errors import CompileError
from compile.files import copy
from endpoint_spec import archives
from endpoint_spec.digests import local_sources
from inference_code.artifact import manifest as manifests
from inference_code.artifact.manifest import ArtifactManifest

if TYPE_CHECKING:
    from endpoint_spec import EndpointSpec

GRAPHS = "graphs"
CODE = "code"
HANDLER = "handler"
# 1980-01-01: the oldest moment that every unpacker takes without a warning.
_TIME = 315532800
# Float weights hold no repeated strings to search for: Huffman codes and runs of zeros are all that makes them smaller.
_STRATEGY = zlib.Z_RLE
_PIECE = 1 << 20
_GZIP = 16 + zlib.MAX_WBITS  # with gzip's header (no name, no time) and checksum, not zlib's


def write_code(spec: EndpointSpec, folder: Path) -> str | None:
    """Writes code/: the entry, inference_code, and the user's handler with its local modules.

    Returns the handler's path inside code/, or None when the spec has no handler.
    """
    code = folder / CODE
    code.mkdir(parents=True)
    package = Path(inference_code.__file__).parent
    # SageMaker's containers load code/inference.py by its name.
    copy(package / "inference.py", code / "inference.py")
    for source in sorted(package.rglob("*.py")):
        copy(source, code / package.name / source.relative_to(package))
    if spec.serve.handler is None:
        return None
    root = spec.root.resolve()
    handler = (root / spec.serve.handler).resolve()
    for source in local_sources(handler, root):
        copy(source, code / HANDLER / source.relative_to(root))
    return f"{HANDLER}/{handler.relative_to(root).as_posix()}"


def file_digests(folder: Path) -> Mapping[str, str]:
    """sha256 of every file of an artifact folder but the manifest, by path with forward slashes."""
    return {
        path.relative_to(folder).as_posix(): manifests.file_sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / manifests.FILE_NAME
    }


def write_archive(folder: Path, archive: Path, advance: Callable[[int], None] = lambda _: None) -> str:
    """Packs `folder` into `archive`; returns its sha256.

    Sorted names, fixed owner, mode and time, no file name in the gzip header: the same content gives the same bytes
    from any directory on any day (with the same zlib). `advance` is called with the bytes of each file.
    """
    with (
        archive.open("wb") as raw,
        _GzipStream(raw) as packed,
        tarfile.open(fileobj=packed, mode="w|", bufsize=_PIECE, format=tarfile.GNU_FORMAT) as tar,
    ):
        _add_all(tar, folder, advance)
    return manifests.file_sha256(archive)


class _GzipStream(io.RawIOBase):
    """Writes gzip as gzip.GzipFile does, which cannot be given a strategy."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._compressor = zlib.compressobj(1, zlib.DEFLATED, _GZIP, strategy=_STRATEGY)

    def write(self, data: Any) -> int:
        self._raw.write(self._compressor.compress(data))
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._raw.write(self._compressor.flush())
        super().close()


def write_tar(folder: Path, archive: Path) -> None:
    """Packs `folder` as it is, with the same care for equal bytes: for what will not become smaller."""
    with tarfile.open(archive, mode="w", format=tarfile.GNU_FORMAT) as tar:
        _add_all(tar, folder, lambda _: None)


def _add_all(tar: tarfile.TarFile, folder: Path, advance: Callable[[int], None]) -> None:
    for path in sorted(folder.rglob("*"), key=lambda p: p.relative_to(folder).as_posix()):
        if path.is_file():
            info = tarfile.TarInfo(path.relative_to(folder).as_posix())
            info.size, info.mtime, info.mode = path.stat().st_size, _TIME, 0o644
            with path.open("rb") as stream:
                tar.addfile(info, stream)
            advance(info.size)


def extract(archive: Path, folder: Path) -> None:
    """Unpacks an artifact. Raises CompileError for an archive that archives.extract refuses."""
    try:
        archives.extract(archive, folder, compressed=True)
    except archives.ArchiveError as error:
        raise CompileError(f"{archive} is not read: {error}.", "Build it again.") from None


def write_cpu_archive(manifest: ArtifactManifest, folder: Path, graphs: Path, archive: Path) -> None:
    """An archive of the same code with graphs for the CPU instead: what runs where the target's chip is not.

    graphs: a folder with a CPU graph for every graph of the manifest. It is marked as a rehearsal.
    """
    copy = archive.parent / "cpu-artifact"
    shutil.copytree(folder, copy)
    shutil.copytree(graphs, copy, dirs_exist_ok=True)
    (copy / manifests.FILE_NAME).unlink()
    rehearsal = dataclasses.replace(manifest, rehearsal=True, files=file_digests(copy))
    manifests.write(rehearsal, copy / manifests.FILE_NAME)
    write_archive(copy, archive)
