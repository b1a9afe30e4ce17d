"""The file of tensors: the format of the safetensors package, and no damage that is not refused."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from compile.portable.tensors import DTYPES, LARGEST_HEADER, TensorFileError, TensorStore, digest_of, read

GB = 1 << 30


def random(dtype: torch.dtype, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    values = torch.randint(0, 2 if dtype == torch.bool else 100, shape, generator=generator)
    return values.to(dtype)


def some() -> list[Tensor]:
    """Every dtype; no dimension, none of a size, odd sizes, and views that are not contiguous."""
    every = [random(dtype, 3, 5) for dtype in DTYPES.values()]
    shapes = [
        random(torch.float32),
        random(torch.int8, 3),
        random(torch.float64, 0, 4),
        torch.empty(0, dtype=torch.bool),
    ]
    views = [random(torch.float32, 4, 6).t(), random(torch.int64, 9)[::2], torch.ones(1).expand(2, 3)]
    odd = [torch.tensor([float("nan"), float("inf"), -0.0])]
    return [*every, *shapes, *views, *odd]


def written(path: Path, tensors: list[Tensor]) -> dict[str, Tensor]:
    store = TensorStore()
    given = {store.add(tensor): tensor for tensor in tensors}
    store.write(path)
    return given


def same(one: Tensor, other: Tensor) -> bool:
    """Bit for bit: also nan and the sign of zero."""
    return one.dtype == other.dtype and one.shape == other.shape and digest_of(one) == digest_of(other)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    given = written(tmp_path / "t", some())
    found = read(tmp_path / "t")
    assert found.keys() == given.keys()
    assert len(found) == len(some())
    assert all(same(found[name], tensor) for name, tensor in given.items())
    for name, tensor in given.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0, equal_nan=True)


def test_the_package_reads_what_is_written(tmp_path: Path) -> None:
    package = pytest.importorskip("safetensors.torch")
    given = written(tmp_path / "t", some())
    found = package.load_file(tmp_path / "t")
    assert found.keys() == given.keys()
    assert all(same(found[name], tensor) for name, tensor in given.items())


def test_what_the_package_writes_is_read(tmp_path: Path) -> None:
    package = pytest.importorskip("safetensors.torch")
    given = {digest_of(tensor): tensor.contiguous() for tensor in some()}
    package.save_file(given, tmp_path / "t")
    found = read(tmp_path / "t")
    assert found.keys() == given.keys()
    assert all(same(found[name], tensor) for name, tensor in given.items())


def test_tensors_that_are_not_aligned_are_read(tmp_path: Path) -> None:
    given = [random(torch.uint8, 3), random(torch.float64, 2)]
    content = b"".join(tensor.numpy().tobytes() for tensor in given)
    entries = {
        digest_of(given[0]): {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]},
        digest_of(given[1]): {"dtype": "F64", "shape": [2], "data_offsets": [3, 19]},
    }
    (tmp_path / "t").write_bytes(file_of(json.dumps(entries).encode(), content))
    assert all(same(one, other) for one, other in zip(read(tmp_path / "t").values(), given, strict=True))


def test_each_tensor_is_aligned_and_kept_once(tmp_path: Path) -> None:
    weight = random(torch.float32, 8, 8)
    given = written(tmp_path / "t", [*some(), weight, weight.clone(), weight.t().contiguous().t()])
    assert len(given) == len(some()) + 1
    content = (tmp_path / "t").read_bytes()
    length = int.from_bytes(content[:8], "little")
    entries = json.loads(content[8 : 8 + length])
    sizes = {name: torch.empty((), dtype=DTYPES[one["dtype"]]).element_size() for name, one in entries.items()}
    assert all((8 + length + one["data_offsets"][0]) % sizes[name] == 0 for name, one in entries.items())
    assert len(content) == 8 + length + sum(tensor.numel() * tensor.element_size() for tensor in given.values())


def test_the_bytes_depend_on_the_tensors_alone(tmp_path: Path) -> None:
    written(tmp_path / "one", some())
    written(tmp_path / "two", some()[::-1])
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_dtype_and_shape_are_part_of_the_digest() -> None:
    zeros = [torch.zeros(4), torch.zeros(2, 2), torch.zeros(4, dtype=torch.int32), torch.zeros(4, 0), torch.zeros(0, 4)]
    assert len({digest_of(one) for one in zeros}) == len(zeros)


def test_an_imaginary_part_keeps_its_sign(tmp_path: Path) -> None:
    part = torch.complex(torch.ones(1), torch.ones(1)).conj().imag
    (name,) = written(tmp_path / "t", [part])
    assert read(tmp_path / "t")[name].tolist() == [-1]


def test_whoever_writes_into_a_tensor_changes_no_file(tmp_path: Path) -> None:
    (name,) = written(tmp_path / "t", [torch.ones(5)])
    before = (tmp_path / "t").read_bytes()
    read(tmp_path / "t")[name].zero_()
    assert (tmp_path / "t").read_bytes() == before


@pytest.mark.parametrize(
    ("tensor", "what"),
    [
        (torch.ones(2, dtype=torch.complex64), "complex64, strided, cpu"),
        (torch.ones(2, 2).to_sparse(), "float32, sparse_coo, cpu"),
        (torch.ones(2, device="meta"), "float32, strided, meta"),
    ],
)
def test_what_the_format_has_not_is_not_kept(tensor: Tensor, what: str) -> None:
    with pytest.raises(TensorFileError, match=f"^a tensor of {what} cannot be kept$"):
        TensorStore().add(tensor)


# -- damage


def file_of(header: bytes, content: bytes = b"", length: int | None = None) -> bytes:
    return (len(header) if length is None else length).to_bytes(8, "little") + header + content


def refused(path: Path, content: bytes, text: str = "") -> None:
    """The file is refused, and for less than a gigabyte of memory."""
    path.write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(TensorFileError) as found:
        read(path)
    assert text in str(found.value)
    assert len(str(found.value)) < 400
    assert "\n" not in str(found.value)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < GB


def test_a_file_that_ends_early(tmp_path: Path) -> None:
    given = [random(torch.float32, 3), random(torch.int8, 2), torch.tensor(True)]
    written(tmp_path / "whole", given)
    whole = (tmp_path / "whole").read_bytes()
    for end in range(len(whole)):
        refused(tmp_path / "t", whole[:end])
    refused(tmp_path / "t", whole + b"\0", "the file has")


def test_a_byte_that_changed(tmp_path: Path) -> None:
    written(tmp_path / "whole", [random(torch.float32, 3), torch.tensor(True)])
    whole = bytearray((tmp_path / "whole").read_bytes())
    for place in range(len(whole)):
        damaged = whole.copy()
        damaged[place] ^= 0x41
        refused(tmp_path / "t", damaged)


@pytest.mark.parametrize("length", [0, 1, LARGEST_HEADER, LARGEST_HEADER + 1, 1 << 40, (1 << 64) - 1])
def test_a_length_that_lies(tmp_path: Path, length: int) -> None:
    written(tmp_path / "whole", [torch.ones(3)])
    refused(tmp_path / "t", length.to_bytes(8, "little") + (tmp_path / "whole").read_bytes()[8:])


def test_a_header_that_is_too_large(tmp_path: Path) -> None:
    header = b"{" + b" " * LARGEST_HEADER + b"}"
    refused(
        tmp_path / "t", file_of(header), f"its header would have {len(header)} bytes, the file has {len(header) + 8}"
    )


@pytest.mark.parametrize(
    ("header", "text"),
    [
        (b"", "its header cannot be read"),
        (b"\xff\xfe{}", "its header cannot be read"),
        (b"nothing", "its header cannot be read"),
        (b"[]", "its header is no object"),
        (b"NaN", "its header cannot be read: NaN is no finite number"),
        (b'{"a": Infinity}', "Infinity is no finite number"),
        (b'{"a": 1e999}', "1e999 is no finite number"),
        (b"9" * 5000, "its header"),
        (b"[" * 100_000, "its header cannot be read"),
        (b'{"a":' * 100_000, "its header cannot be read"),
        (b"[" + b"{}," * (LARGEST_HEADER // 3 - 2) + b"{}]", "its header is no object"),
        (b'{"\\ud800": 1}', "tensor '\\ud800' is not described as the format asks"),
        (b'{"__metadata__": {"format": "pt"}}', "tensor '__metadata__' is not described as the format asks"),
        (b'{"' + b"n" * 10_000 + b'": {}}', "is not described as the format asks"),
    ],
)
def test_a_header_that_is_none(tmp_path: Path, header: bytes, text: str) -> None:
    refused(tmp_path / "t", file_of(header), text)


def one(**changed: Any) -> dict[str, Any]:
    """The entry of two zeros in float32, with something in it changed."""
    return {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changed


ZEROS = digest_of(torch.zeros(2))


@pytest.mark.parametrize(
    "entry",
    [
        *(one(dtype=kind) for kind in ("F16", "F8_E4M3", "f32", "", None, 1, [], {})),
        *(
            one(shape=shape)
            for shape in ([3], [-2], [2.0], [True, 2], ["2"], [[2]], [None], "2", "", {}, {"2": 0}, None, 2)
        ),
        *(one(shape=shape) for shape in ([1 << 63, 2], [1 << 62, 1 << 62], [2, *[1] * 64], [10**4000], [1 << 61] * 60)),
        *(
            one(shape=shape, data_offsets=[0, 0])
            for shape in ([0, 1 << 62], [0, 1 << 62, 1 << 62], [0] * 65, [1 << 64])
        ),
        *(
            one(data_offsets=pair)
            for pair in ([0, 7], [0, 9], [8, 0], [-8, 0], [1, 9], [8, 16], [0], [0, 8, 8], [], {}, "08")
        ),
        *(
            one(data_offsets=pair)
            for pair in ([0, 1 << 64], [1 << 64, (1 << 64) + 8], [0.0, 8.0], [False, 8], [None, 8], 8)
        ),
        {"dtype": "F32", "shape": [2]},
        {"dtype": "F32", "data_offsets": [0, 8]},
        {"shape": [2], "data_offsets": [0, 8]},
        *({}, [], None, 1, "F32"),
    ],
)
def test_an_entry_that_is_wrong(tmp_path: Path, entry: Any) -> None:
    refused(tmp_path / "t", file_of(json.dumps({ZEROS: entry}).encode(), bytes(8)))


def test_the_entry_by_itself_is_sound(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(file_of(json.dumps({ZEROS: one()}).encode(), bytes(8)))
    assert read(tmp_path / "t")[ZEROS].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("second", "size", "text"),
    [
        ([4, 12], 12, "its tensors overlap or leave a gap at byte 4"),
        ([0, 8], 8, "its tensors overlap or leave a gap at byte 0"),
        ([12, 20], 20, "its tensors overlap or leave a gap at byte 8"),
        ([8, 16], 24, "its tensors end at byte 16, the file has 24"),
        ([8, 16], 8, "its tensors end at byte 16, the file has 8"),
    ],
)
def test_tensors_fill_the_file(tmp_path: Path, second: list[int], size: int, text: str) -> None:
    header = json.dumps({ZEROS: one(), "another": one(data_offsets=second)}).encode()
    refused(tmp_path / "t", file_of(header, bytes(size)), text)


def test_a_key_that_stands_twice(tmp_path: Path) -> None:
    entry = json.dumps(one())
    header = f'{{"{ZEROS}": {entry}, "{ZEROS}": {entry}}}'.encode()
    refused(tmp_path / "t", file_of(header, bytes(8)), "a key stands twice in an object")
    inner = json.dumps({ZEROS: one()}).replace('"dtype"', '"shape": [2], "dtype"').encode()
    refused(tmp_path / "t", file_of(inner, bytes(8)), "a key stands twice in an object")


def test_a_tensor_that_does_not_fit_its_digest(tmp_path: Path) -> None:
    header = json.dumps({ZEROS: one()}).encode()
    made = digest_of(torch.frombuffer(bytearray(b"\0\0\0\0\0\0\x80?"), dtype=torch.float32))
    text = f"tensor {ZEROS!r} does not fit its digest: it is {made}"
    refused(tmp_path / "t", file_of(header, b"\0\0\0\0\0\0\x80?"), text)


def test_a_bool_that_is_none(tmp_path: Path) -> None:
    wrong = torch.tensor([1, 2], dtype=torch.uint8).view(torch.bool)
    header = json.dumps({digest_of(wrong): {"dtype": "BOOL", "shape": [2], "data_offsets": [0, 2]}}).encode()
    refused(tmp_path / "t", file_of(header, b"\1\2"), "holds 2 as a bool")


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir()])
def test_what_is_no_file_is_an_error_of_the_system(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "t")
    with pytest.raises(OSError, match="t"):
        read(tmp_path / "t")
