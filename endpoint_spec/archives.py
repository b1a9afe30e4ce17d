"""The one reader of archives that come from elsewhere: .tar, .tar.gz (`extract`) and zip files (`ZipReader`).

Artifacts, cached graphs, bundles of jobs and weights are all read here. tarfile's own filters are not used: they came
with Python 3.11.4, and until 3.11.13 a link could lead out of the folder in spite of them (CVE-2025-4517). Here regular
files and folders are taken and nothing else, names are checked by hand, and members, bytes and the ratio of unpacked to
packed bytes are bounded before anything is read into memory.

Standard library alone, from Python 3.10 on: a compile job runs this file by its path, as `archives.py ARCHIVE FOLDER`.
"""

from __future__ import annotations

import gzip
import itertools
import struct
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

BLOCK = tarfile.BLOCKSIZE
PIECE = 1 << 20  # bytes that are read at once
LONGEST_NAME = 1024  # bytes; S3 keys end there, too
DEEPEST = 64  # folders below each other
LARGEST_HEADER = 64 * 1024  # bytes of a name or of attributes that stand before a member
LARGEST_DIRECTORY = 16 << 20  # bytes of a zip's list of members
# Kinds of header of a tar, https://pubs.opengroup.org/onlinepubs/9699919799/utilities/pax.html#tag_20_92_13_06
FILES = (tarfile.REGTYPE, tarfile.AREGTYPE)
LONG_NAME, PAX, PAX_FOR_ALL = tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE
KINDS = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.GNUTYPE_LONGLINK: "a link with a long target",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a named pipe",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}


class ArchiveError(ValueError):
    """An archive that is not read. The text is one line without the archive's own name: what is wrong, and where."""


@dataclass(frozen=True)
class Bounds:
    """What an archive may hold: members (headers count), bytes once unpacked, and unpacked bytes to each packed one.

    The ratio holds above `free` bytes: small archives of zeros are no danger. Trained weights hardly compress.
    """

    members: int = 20_000
    unpacked: int = 64 << 30
    ratio: int = 100
    free: int = 64 << 20

    def unpacked_bytes(self, packed: int) -> int:
        """Bytes that an archive of `packed` bytes may become."""
        return min(self.unpacked, max(self.free, self.ratio * packed))


BOUNDS = Bounds()


def extract(archive: Path, folder: Path, bounds: Bounds = BOUNDS, *, compressed: bool) -> None:
    """Unpack a tar, `compressed` by gzip or not, into `folder`, which may exist; no file there is written over.

    Files get mode 0644, or 0755 where their owner may run them. After an error nothing that was unpacked is left.
    Raises ArchiveError for anything but a sound archive of regular files and folders within `bounds`; OSError where
    the archive cannot be read or the disk not be written.
    """
    made: list[Path] = []
    try:
        limit = bounds.unpacked_bytes(archive.stat().st_size)
        with gzip.open(archive, "rb") if compressed else archive.open("rb") as stream:
            _unpack(_Tar(stream, limit, bounds.members), folder, made)
    except BaseException as error:
        for path in reversed(made):
            path.rmdir() if path.is_dir() else path.unlink()
        if isinstance(error, EOFError | gzip.BadGzipFile | zlib.error | tarfile.TarError):
            raise ArchiveError(f"it is damaged: {error}") from None
        raise


@dataclass(frozen=True)
class _Member:
    name: str
    size: int
    kind: bytes
    mode: int


class _Tar:
    """Reads headers and contents from a stream, in order, and never more than `limit` bytes."""

    def __init__(self, stream: gzip.GzipFile | IO[bytes], limit: int, members: int) -> None:
        self._stream, self._limit, self._left, self._members = stream, limit, limit, members

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes. Raises ArchiveError at the end of the stream or of the limit."""
        self._require(size)
        data = self._stream.read(size)
        self._left -= len(data)
        if len(data) < size:
            raise ArchiveError("it is damaged: it ends in the middle")
        return data

    def _require(self, size: int) -> None:
        if size > self._left:
            raise ArchiveError(f"it unpacks to more than {self._limit} bytes, which is the most for one of its size")

    def content(self, size: int) -> Iterator[bytes]:
        """The next `size` bytes in pieces, and past what fills up their last block."""
        self._require(size)
        for begin in range(0, size, PIECE):
            yield self.read(min(PIECE, size - begin))
        self.read(-size % BLOCK)

    def members(self) -> Iterator[_Member]:
        """Each file and folder; the caller reads the content of each before the next."""
        given: dict[str, str] = {}  # what headers say of the member that follows them
        for count in itertools.count(1):
            block = self.read(BLOCK)
            if not block.strip(b"\0"):
                if given:
                    raise ArchiveError("it is damaged: it ends after a header that announces a member")
                return self._end()
            if count > self._members:
                raise ArchiveError(f"it has more than {self._members} members")
            head = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            if head.size < 0:
                raise ArchiveError(f"it is damaged: a member has {head.size} bytes")
            if head.type in (LONG_NAME, PAX, PAX_FOR_ALL):
                self._announce(head, given)
                continue
            name = _checked(given.get("path", head.name))
            if head.type not in (*FILES, tarfile.DIRTYPE):
                kind = KINDS.get(head.type, f"of the unknown kind {head.type!r}")
                raise ArchiveError(f"{_shown(name)} is {kind}; only regular files and folders are taken")
            size = head.size if "size" not in given else int(given["size"])
            if head.type == tarfile.DIRTYPE and size:
                raise ArchiveError(f"it is damaged: the folder {_shown(name)} has {size} bytes")
            given.clear()
            yield _Member(name, size, head.type, head.mode)

    def _announce(self, head: tarfile.TarInfo, given: dict[str, str]) -> None:
        """Read a header that is about the next member: GNU's long name or POSIX' attributes."""
        if head.size > LARGEST_HEADER:
            raise ArchiveError(f"a header has {head.size} bytes, more than {LARGEST_HEADER}")
        text = b"".join(self.content(head.size))
        found = {"path": _text(text.split(b"\0", 1)[0])} if head.type == LONG_NAME else _attributes(text)
        if head.type == PAX_FOR_ALL and {"path", "size"} & set(found):
            raise ArchiveError("a header gives one name or size to all members")
        repeated = set(found) & set(given)
        if repeated:
            raise ArchiveError(f"it is damaged: two headers give the {sorted(repeated)[0]} of one member")
        given.update(found if head.type != PAX_FOR_ALL else {})

    def _end(self) -> None:
        """After the last member only zeros may follow; reading them proves gzip's checksum."""
        while piece := self._stream.read(PIECE):
            self._left -= len(piece)
            if piece.strip(b"\0") or self._left < 0:
                raise ArchiveError("it goes on after its end")


def _attributes(text: bytes) -> dict[str, str]:
    """Of lines "LENGTH KEY=VALUE\\n" what this reader heeds: path and size. Raises ArchiveError."""
    found = {}
    while text:
        length, _, rest = text.partition(b" ")
        if not (length.isdigit() and len(length) < 8 and len(length) + 2 < int(length) <= len(text)):
            raise ArchiveError("it is damaged: a header's attributes cannot be read")
        key, equals, value = rest[: int(length) - len(length) - 1].partition(b"=")
        if not equals or not value.endswith(b"\n"):
            raise ArchiveError("it is damaged: a header's attributes cannot be read")
        if key.startswith(b"GNU.sparse."):
            raise ArchiveError("it holds a sparse file; only regular files and folders are taken")
        if key in (b"path", b"size"):
            found[key.decode()] = _text(value[:-1])
        text = text[int(length) :]
    if "size" in found and not (found["size"].isascii() and found["size"].isdigit() and len(found["size"]) < 19):
        raise ArchiveError(f"it is damaged: a member has {_shown(found['size'])} bytes")
    return found


def _unpack(tar: _Tar, folder: Path, made: list[Path]) -> None:
    """Write every member; `made` gets each path that was not there before."""
    _make(folder, made)
    for member in tar.members():
        path = folder / member.name
        if member.kind == tarfile.DIRTYPE:
            _make(path, made)
            continue
        if not member.name:
            raise ArchiveError("a file has no name")
        _make(path.parent, made)
        try:
            with path.open("xb") as file:
                made.append(path)
                for piece in tar.content(member.size):
                    file.write(piece)
        except FileExistsError:
            raise ArchiveError(f"{_shown(member.name)} stands in it twice, or is there already") from None
        path.chmod(0o755 if member.mode & 0o100 else 0o644)


def _make(folder: Path, made: list[Path]) -> None:
    """A folder and those above it. Raises ArchiveError where a file is in its place."""
    missing = [path for path in (folder, *folder.parents) if not path.is_dir()]
    for path in reversed(missing):
        try:
            path.mkdir(mode=0o755)
        except (FileExistsError, NotADirectoryError):
            raise ArchiveError(f"{_shown(path.name)} is a file and a folder in it") from None
        made.append(path)


def _checked(name: str) -> str:
    """A member's name as a relative path, "" for the folder itself. Raises ArchiveError."""
    if len(name.encode("utf-8", "surrogateescape")) > LONGEST_NAME:
        raise ArchiveError(f"a name has more than {LONGEST_NAME} bytes: {_shown(name)}")
    if not name.isprintable() or "\\" in name:
        raise ArchiveError(f"the name {_shown(name)} has characters that are not taken")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts:
        raise ArchiveError(f"the name {_shown(name)} leads out of the folder")
    if len(parts) > DEEPEST:
        raise ArchiveError(f"{_shown(name)} is more than {DEEPEST} folders deep")
    if any(len(part.encode()) > 255 for part in parts):  # NAME_MAX of Linux' file systems
        raise ArchiveError(f"a part of the name {_shown(name)} has more than 255 bytes")
    return "/".join(parts)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _shown(name: str) -> str:
    """A name for a message: short, and with no control characters."""
    return ascii(name if len(name) <= 80 else f"{name[:77]}...")


class _Pieces:
    """A file that is never asked for much at once: zipfile reads the list of members in one piece."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek, self.tell, self.close, self.seekable = file.seek, file.tell, file.close, file.seekable

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes, or all. Raises ArchiveError for more than any honest list of members has."""
        data = self._file.read(min(size, LARGEST_DIRECTORY + 1) if size >= 0 else LARGEST_DIRECTORY + 1)
        if len(data) > LARGEST_DIRECTORY:
            raise ArchiveError(f"its list of members has more than {LARGEST_DIRECTORY} bytes")
        return data


class ZipReader:
    """A zip whose members were all checked when it was opened; use it in a `with`. Nothing is written to the disk.

    Raises ArchiveError (at opening, and from `read`) for a damaged, encrypted or hostile archive, and for one beyond
    `bounds`; OSError where the file cannot be read.
    """

    def __init__(self, path: Path, bounds: Bounds = BOUNDS) -> None:
        self._file = path.open("rb")
        try:
            self._zip = zipfile.ZipFile(_Pieces(self._file))
            self._members = _checked_members(self._zip, path.stat().st_size, bounds)
        except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, struct.error) as error:
            self._file.close()
            raise error if isinstance(error, ArchiveError) else ArchiveError(f"it is no zip archive: {error}") from None

    def __enter__(self) -> ZipReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._zip.close()
        self._file.close()

    def names(self) -> list[str]:
        """The names of all files in it."""
        return list(self._members)

    def read(self, name: str) -> bytearray:
        """The content of a file in it, with its checksum proven. Raises ArchiveError, also where there is none."""
        if name not in self._members:
            raise ArchiveError(f"there is no {_shown(name)} in it")
        content = bytearray()
        try:
            with self._zip.open(self._members[name]) as stream:
                while piece := stream.read(PIECE):
                    content += piece
        except (zipfile.BadZipFile, NotImplementedError, EOFError, zlib.error, ValueError, struct.error) as error:
            raise ArchiveError(f"{_shown(name)} is damaged: {error}") from None
        return content


def _checked_members(archive: zipfile.ZipFile, packed: int, bounds: Bounds) -> dict[str, zipfile.ZipInfo]:
    """The files of a zip by name. Raises ArchiveError."""
    found: dict[str, zipfile.ZipInfo] = {}
    every = archive.infolist()
    if len(every) > bounds.members:
        raise ArchiveError(f"it has {len(every)} members, more than {bounds.members}")
    for one in every:
        _checked(one.filename)
        if not 0 <= one.header_offset < packed:
            raise ArchiveError(f"{_shown(one.filename)} lies outside of the file")
        if one.filename in found:
            raise ArchiveError(f"{_shown(one.filename)} stands in it twice")
        if one.flag_bits & 0x1:  # APPNOTE 4.4.4, bit 0: encrypted
            raise ArchiveError(f"{_shown(one.filename)} is encrypted")
        if one.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ArchiveError(f"{_shown(one.filename)} is compressed by the method {one.compress_type}")
        if not one.is_dir():
            found[one.filename] = one
    # Members that share bytes are how a small zip becomes a large one, https://www.bamsoftware.com/hacks/zipbomb/
    if sum(one.compress_size for one in every) > packed:
        raise ArchiveError("its members overlap")
    limit = bounds.unpacked_bytes(packed)
    if sum(one.file_size for one in every) > limit:
        raise ArchiveError(f"it unpacks to more than {limit} bytes, which is the most for one of its size")
    return found


if __name__ == "__main__":
    try:
        extract(Path(sys.argv[1]), Path(sys.argv[2]), compressed=True)
    except (ArchiveError, OSError) as error:
        sys.exit(f"{Path(sys.argv[1]).name} cannot be unpacked: {error}")
