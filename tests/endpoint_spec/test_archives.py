"""The reader of archives: what it takes, what it refuses, and that nothing is left of what it refused."""

from __future__ import annotations

import gzip
import io
import os
import random
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from endpoint_spec import archives
from endpoint_spec.archives import ArchiveError, Bounds, ZipReader

READER = Path(archives.__file__)


def member(name: str, content: bytes = b"x", kind: bytes = tarfile.REGTYPE, link: str = "") -> tuple[bytes, bytes]:
    """Header and padded content, written by hand: tarfile itself would put right what is wrong here."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(content)
    return info.tobuf(tarfile.GNU_FORMAT), content + b"\0" * (-len(content) % 512)


def tar(*members: tuple[bytes, bytes], end: bytes = b"\0" * 1024) -> bytes:
    return b"".join(head + content for head, content in members) + end


def sized(name: str, size: int) -> bytes:
    """A header that announces `size` bytes."""
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


def attributes(text: bytes, kind: bytes = tarfile.XHDTYPE) -> tuple[bytes, bytes]:
    return member("attributes", text, kind)


def attribute(key: bytes, value: bytes) -> bytes:
    """One line of a POSIX header, whose first number counts itself."""
    rest = b" %b=%b\n" % (key, value)
    size = len(rest) + len(str(len(rest)))
    size += len(str(size)) > len(str(len(rest)))
    return str(size).encode() + rest


def negative(name: str) -> tuple[bytes, bytes]:
    """A header whose size is the number -1 in base 256, which some readers take for a step back."""
    head = bytearray(sized(name, 0))
    head[124:136] = b"\xff" * 12
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head), b""


def extracted(content: bytes, folder: Path, *, compressed: bool = True, bounds: Bounds = archives.BOUNDS) -> None:
    archive = folder / "archive"
    archive.write_bytes(gzip.compress(content, 1) if compressed else content)
    archives.extract(archive, folder / "out", bounds, compressed=compressed)


def names(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


DEEP_LINKS = [member(f"{'d/' * n}l", b"", tarfile.SYMTYPE, "../" * n) for n in range(1, 20)]
HOSTILE = {
    "a name above": (tar(member("../outside")), r"leads out of the folder"),
    "a name above, later": (tar(member("a/b/../../../outside")), r"leads out of the folder"),
    "an absolute name": (tar(member("/outside")), r"leads out of the folder"),
    "a backslash": (tar(member("..\\outside")), r"characters that are not taken"),
    "a line break": (tar(member("a\nb")), r"characters that are not taken"),
    "an escape": (tar(member("\x1b[2J")), r"characters that are not taken"),
    "no UTF-8": (tar(attributes(attribute(b"path", b"\xff\xfe")), member("a")), r"characters that are not taken"),
    "a long name in UTF-8": (tar(attributes(attribute(b"path", b"\xc3\xa9" * 600)), member("a")), r"more than 1024"),
    "a long part": (tar(attributes(attribute(b"path", b"a" * 300)), member("a")), r"more than 255 bytes"),
    "no name": (tar(member("./")), r"has no name"),
    "deep": (tar(member("d/" * 65 + "a")), r"64 folders deep"),
    "a symbolic link": (tar(member("l", b"", tarfile.SYMTYPE, "/etc/passwd")), r"'l' is a symbolic link"),
    "a chain of links": (tar(*DEEP_LINKS), r"is a symbolic link"),
    "a hard link": (tar(member("a"), member("l", b"", tarfile.LNKTYPE, "a")), r"'l' is a hard link"),
    "a long link": (tar(member("k", b"/" * 200, tarfile.GNUTYPE_LONGLINK)), r"a link with a long target"),
    "a device": (tar(member("d", b"", tarfile.CHRTYPE)), r"'d' is a device"),
    "a pipe": (tar(member("p", b"", tarfile.FIFOTYPE)), r"'p' is a named pipe"),
    "sparse": (tar(member("s", b"", tarfile.GNUTYPE_SPARSE)), r"'s' is a sparse file"),
    "sparse in POSIX": (tar(attributes(attribute(b"GNU.sparse.major", b"1")), member("s")), r"a sparse file"),
    "an unknown kind": (tar(member("x", b"", b"Z")), r"unknown kind b'Z'"),
    "twice": (tar(member("a"), member("./a")), r"'a' stands in it twice"),
    "a file as a folder": (tar(member("a"), member("a/b")), r"is a file and a folder"),
    "a folder as a file": (tar(member("a/b"), member("a")), r"twice"),
    "a folder with bytes": (tar(member("a/", b"x", tarfile.DIRTYPE)), r"the folder 'a' has 1 bytes"),
    "a negative size": (tar(negative("a")), r"has -1 bytes"),
    "a huge size": (tar((sized("a", 1 << 40), b"")), r"unpacks to more than"),
    "a size that is none": (tar(attributes(attribute(b"size", b"-1")), member("a")), r"'-1' bytes"),
    "a huge name": (tar((sized("x", 0)[:156] + b"L" + sized("x", 0)[157:], b"")), r"damaged"),
    "a large header": (tar(member("x", b"a" * 70_000, tarfile.GNUTYPE_LONGNAME)), r"a header has 70000 bytes"),
    "a chain of headers": (tar(*[member("x", b"a\0", tarfile.GNUTYPE_LONGNAME)] * 3000), r"two headers"),
    "a header for all": (tar(attributes(attribute(b"path", b"a"), tarfile.XGLTYPE), member("b")), r"all members"),
    "a header and no member": (tar(attributes(attribute(b"path", b"a"))), r"ends after a header"),
    "attributes of nonsense": (tar(attributes(b"99999 path=a\n"), member("b")), r"attributes cannot be read"),
    "attributes of length 0": (tar(attributes(b"0 path=a\n"), member("b")), r"attributes cannot be read"),
    "cut in a header": (tar(member("a"))[:700], r"ends in the middle"),
    "cut in a content": (tar(member("a", b"x" * 9000))[:5000], r"ends in the middle"),
    "no end": (tar(member("a"), end=b""), r"ends in the middle"),
    "more after the end": (tar(member("a")) + tar(member("b")), r"goes on after its end"),
    "a wrong checksum": (b"\x01" + tar(member("a")), r"damaged"),
    "no tar": (b"hello " * 200, r"damaged"),
    "nothing": (b"", r"ends in the middle"),
}


@pytest.mark.parametrize("case", HOSTILE)
@pytest.mark.parametrize("compressed", [True, False])
def test_what_is_refused_leaves_nothing(tmp_path: Path, case: str, compressed: bool) -> None:
    content, problem = HOSTILE[case]
    home = tmp_path / "deep" / "home"
    home.mkdir(parents=True)
    with pytest.raises(ArchiveError, match=problem) as caught:
        extracted(content, home, compressed=compressed)
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.rglob("*")] == ["deep", "home", "archive"]


def test_no_file_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "out" / "a").mkdir(parents=True)
    (tmp_path / "out" / "a" / "mine").write_text("mine")
    with pytest.raises(ArchiveError, match="'a/mine' stands in it twice, or is there already"):
        extracted(tar(member("a/first"), member("a/mine", b"theirs")), tmp_path)
    assert names(tmp_path / "out") == {"a/mine": b"mine"}


@pytest.mark.parametrize("damage", ["checksum", "cut", "tail", "no gzip"])
def test_damaged_gzip(tmp_path: Path, damage: str) -> None:
    whole = bytearray(gzip.compress(tar(member("a", os.urandom(5000)))))
    if damage == "checksum":
        whole[-8] ^= 1
    content = {"cut": whole[:-9], "tail": whole + b"tail", "no gzip": tar(member("a"))}.get(damage, whole)
    (tmp_path / "a.tar.gz").write_bytes(content)
    with pytest.raises(ArchiveError, match="damaged"):
        archives.extract(tmp_path / "a.tar.gz", tmp_path / "out", compressed=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_what_others_write_is_read(tmp_path: Path, form: int) -> None:
    source = {"code/inference.py": b"run", "graphs/" + "n" * 90 + "/g.pt": os.urandom(3 << 20), "empty": b""}
    if form != tarfile.USTAR_FORMAT:
        source["ä/" + "l" * 150] = b"long"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as made:
        folder = tarfile.TarInfo("./")
        folder.type = tarfile.DIRTYPE
        made.addfile(folder)
        for name, content in source.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size, info.mtime, info.mode = len(content), 1.5, 0o4755 if name == "empty" else 0o600
            made.addfile(info, io.BytesIO(content))
    extracted(buffer.getvalue(), tmp_path, compressed=form != tarfile.GNU_FORMAT)
    assert names(tmp_path / "out") == source
    assert (tmp_path / "out/empty").stat().st_mode & 0o7777 == 0o755
    assert (tmp_path / "out/code/inference.py").stat().st_mode & 0o7777 == 0o644


def test_what_tar_itself_writes_is_read(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "code" / "empty folder").mkdir(parents=True)
    (home / "code" / ("n" * 120)).write_bytes(b"content")
    for form in ("gnu", "posix", "ustar"):
        command = ["tar", "-czf", str(tmp_path / form), f"--format={form}", "-C", str(home), "."]
        if form == "ustar":
            command.insert(1, "--exclude=n*")
        subprocess.run(command, check=True)
        archives.extract(tmp_path / form, tmp_path / f"out-{form}", compressed=True)
        assert (tmp_path / f"out-{form}/code/empty folder").is_dir()
        assert names(tmp_path / f"out-{form}") == ({} if form == "ustar" else names(home))


def test_bounds(tmp_path: Path) -> None:
    zeros = tar(member("a", b"\0" * 200_000))
    with pytest.raises(ArchiveError, match="more than 65536 bytes"):
        extracted(zeros, tmp_path, bounds=Bounds(free=65536, ratio=10))
    with pytest.raises(ArchiveError, match="more than 100000 bytes"):
        extracted(zeros, tmp_path, bounds=Bounds(unpacked=100_000))
    with pytest.raises(ArchiveError, match="more than 3 members"):
        extracted(tar(*[member(str(n)) for n in range(4)]), tmp_path, bounds=Bounds(members=3))
    extracted(tar(*[member(str(n)) for n in range(3)]), tmp_path, bounds=Bounds(members=3))


def test_a_small_archive_of_zeros_is_stopped_before_it_fills_the_disk(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "bomb.tar.gz", "wb", 1) as out:
        out.write(sized("zeros", 1 << 27))
        for _ in range(1 << 7):
            out.write(b"\0" * (1 << 20))
        out.write(b"\0" * 1024)
    with pytest.raises(ArchiveError, match="unpacks to more than"):
        archives.extract(tmp_path / "bomb.tar.gz", tmp_path / "out", compressed=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("seed", range(4))
def test_flipped_bytes_are_read_or_refused(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    whole = tar(attributes(attribute(b"path", b"b/c")), member("x"), member("a", b"content"), member("y" * 99))
    for turn in range(300):
        content = bytearray(whole)
        for _ in range(dice.randint(1, 4)):
            content[dice.randrange(len(content))] = dice.randrange(256)
        home = tmp_path / str(turn)
        home.mkdir()
        try:
            extracted(bytes(content), home, compressed=False)
        except ArchiveError:
            assert not (home / "out").exists()
        assert not [path for path in home.rglob("*") if path.is_symlink()]


def test_the_reader_runs_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(tar(member("a/b", b"content"))))
    run = [sys.executable, "-I", str(READER), str(tmp_path / "a.tar.gz"), str(tmp_path / "out")]
    assert subprocess.run(run, check=False).returncode == 0
    assert names(tmp_path / "out") == {"a/b": b"content"}
    again = subprocess.run(run, check=False, capture_output=True, text=True)
    assert again.returncode == 1
    assert again.stderr == "a.tar.gz cannot be unpacked: 'a/b' stands in it twice, or is there already\n"


# -- zip ---------------------------------------------------------------------------------------------------------------


def zipped(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as made:
        for name, content in files.items():
            made.writestr(name, content)
    return path


def test_a_sound_zip(tmp_path: Path) -> None:
    content = os.urandom(3 << 20)
    with ZipReader(zipped(tmp_path / "a", {"m/data.pkl": b"x", "m/data/0": content, "m/folder/": b""})) as archive:
        assert archive.names() == ["m/data.pkl", "m/data/0"]
        assert archive.read("m/data/0") == content
        with pytest.raises(ArchiveError, match="there is no 'm/other' in it"):
            archive.read("m/other")


def encrypted(path: Path) -> None:
    data = bytearray(zipped(path, {"a": b"x"}).read_bytes())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)


def overlapping(path: Path) -> None:
    """One content under many names, as the zips do that grow by the square of their size."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("a", b"\0" * 100_000)
        first = made.infolist()[0]
        for number in range(200):
            info = zipfile.ZipInfo(f"b{number}")
            for field in ("CRC", "compress_size", "file_size", "header_offset", "compress_type"):
                setattr(info, field, getattr(first, field))
            made.filelist.append(info)
            made.NameToInfo[info.filename] = info


def twice(path: Path) -> None:
    data = zipped(path, {"a": b"1", "b": b"2"}).read_bytes()
    path.write_bytes(data.replace(b"b2PK", b"a2PK").replace(b"bPK", b"aPK"))


ZIPS = {
    "no zip": (lambda path: path.write_bytes(b"hello" * 100), "no zip archive"),
    "empty": (lambda path: path.write_bytes(b""), "no zip archive"),
    "a name above": (lambda path: zipped(path, {"../a": b"x"}), "leads out of the folder"),
    "deep": (lambda path: zipped(path, {"d/" * 100 + "a": b"x"}), "64 folders deep"),
    "many": (lambda path: zipped(path, {str(n): b"" for n in range(20_001)}), "20001 members"),
    "zeros": (lambda path: zipped(path, {"a": b"\0" * (65 << 20)}, zipfile.ZIP_DEFLATED), "unpacks to more than"),
    "bzip2": (lambda path: zipped(path, {"a": b"x"}, zipfile.ZIP_BZIP2), "compressed by the method 12"),
    "encrypted": (encrypted, "'a' is encrypted"),
    "overlapping": (overlapping, "its members overlap"),
    "twice": (twice, "'a' stands in it twice"),
}


@pytest.mark.parametrize("case", ZIPS)
def test_a_hostile_zip_is_refused(tmp_path: Path, case: str) -> None:
    make, problem = ZIPS[case]
    make(tmp_path / "a.zip")
    with pytest.raises(ArchiveError, match=problem) as caught:
        ZipReader(tmp_path / "a.zip")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("seed", range(4))
def test_flipped_bytes_of_a_zip_are_read_or_refused(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    whole = zipped(tmp_path / "a.zip", {"m/a": b"content" * 50, "m/b": b""}, zipfile.ZIP_DEFLATED).read_bytes()
    for _ in range(300):
        content = bytearray(whole)
        for _ in range(dice.randint(1, 4)):
            content[dice.randrange(len(content))] = dice.randrange(256)
        (tmp_path / "a.zip").write_bytes(content)
        try:
            with ZipReader(tmp_path / "a.zip") as archive:
                for name in archive.names():
                    assert archive.read(name) in (b"content" * 50, b"")
        except ArchiveError:
            pass
