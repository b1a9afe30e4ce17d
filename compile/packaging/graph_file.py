"""Opening a graph file that stands on the disk as one archive."""

from __future__ import annotations

import tempfile
from pathlib import Path

from compile.errors import CompileError
from compile.portable import check, decode
from compile.portable.file import GRAPH, TENSORS, GraphFile, GraphFileError
from endpoint_spec import archives

NAME = "model.graph"  # beside the artifact
_BOUNDS = archives.Bounds(members=2)
_REMEDY = "Take it from where it was built again, or build it anew: inferentia build NAME."


def read(path: Path) -> GraphFile:
    """A graph file, unpacked into a temporary folder, with everything in it checked.

    Raises CompileError for a file that is damaged, of a newer format, or not to be replayed by this torch; OSError
    where it cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="graph-") as folder:
        place = Path(folder)
        try:
            archives.extract(path, place, _BOUNDS, compressed=False)
            names = sorted(one.name for one in place.iterdir())
            if names != [GRAPH, TENSORS]:
                raise GraphFileError(f"it holds {', '.join(names) or 'nothing'}, not {GRAPH} and {TENSORS}")
            found = decode.read(place)
            check.require(found)
        except (archives.ArchiveError, GraphFileError) as error:
            raise CompileError(f"{path} is no graph file that can be read: {error}", _REMEDY) from None
    return found  # its tensors are mapped: the space on the disk is free when they are
