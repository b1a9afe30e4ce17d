from __future__ import annotations

import contextlib
import gc
import io
import pickle
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_code.codecs.npy import npy_bytes, read_npy, read_npz, write_npy, write_npz
from inference_code.errors import BadRequest, TooLarge


def saved(array: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


def with_header(header: str, data: bytes = b"", version: int = 1) -> bytes:
    text = header.encode()
    return b"\x93NUMPY" + bytes([version, 0]) + len(text).to_bytes(2 if version == 1 else 4, "little") + text + data


@pytest.mark.parametrize("dtype", ["?", "u1", "i1", "<i2", ">i4", "<i8", "u8", "<f2", ">f4", "f8"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3), (2, 0, 4)])
def test_what_numpy_saves_is_read(dtype: str, shape: tuple[int, ...]) -> None:
    array = (np.arange(int(np.prod(shape))) % 2).reshape(shape).astype(dtype)
    found = read_npy(saved(array))
    np.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype.newbyteorder("=")


def test_fortran_order_is_read() -> None:
    array = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    np.testing.assert_array_equal(read_npy(saved(array)), array)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_all_three_versions_are_read(version: int) -> None:
    body = with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }", b"\0\0\x80?", version)
    assert read_npy(body).tolist() == [1.0]


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }   \n",
        '{"shape": (2,), "descr": "<f4", "fortran_order": False}',
        "{'shape':(2,),'fortran_order':False,'descr':'<f4'}",
        "{ 'descr' : '<f4' , 'fortran_order' : True , 'shape' : ( 2 , ) , }",
    ],
)
def test_headers_of_other_writers_are_read(header: str) -> None:
    assert read_npy(with_header(header, b"\0\0\x80?" * 2)).tolist() == [1.0, 1.0]


def test_many_threads_read_at_once() -> None:
    """Where threads change within the parser of CPython 3.11's literals, which the collector makes them do here."""
    bodies = [saved(np.full((n, 3), n, np.float32)) for n in range(1, 9)]

    def pause(phase: str, info: dict[str, int]) -> None:
        time.sleep(0)

    threshold = gc.get_threshold()
    gc.callbacks.append(pause)
    gc.set_threshold(20)
    try:
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda n: [read_npy(bodies[n % 8]).shape for _ in range(25)], range(16)))
    finally:
        gc.set_threshold(*threshold)
        gc.callbacks.remove(pause)
    assert found == [[(n % 8 + 1, 3)] * 25 for n in range(16)]


class Evil:
    """Unpickling it would raise."""

    def __reduce__(self) -> Any:
        return (eval, ("1/0",))


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (b"", "not an npy file"),
        (b"hello world, I am a text file", "not an npy file"),
        (pickle.dumps([1]), "not an npy file"),
        (saved(np.array([Evil()], dtype=object), allow_pickle=True), "never"),
        (saved(np.array(["text"])), "'<U4'"),
        (saved(np.array([1j])), "'<c16'"),
        (saved(np.zeros(2, [("a", "f4")])), "dtype"),
        (saved(np.zeros(4, "f4"))[:-1], "claims 4 elements of float32 (16 bytes) and holds 15"),
        (saved(np.zeros(4, "f4")) + b"x", "holds 17"),
        (
            with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }"),
            "1000000000000 elements",
        ),
        (with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (0, " + "9" * 40 + "), }"), "refuses"),
        (with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }"), "shape"),
        (with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (True,), }"), "shape"),
        (with_header("{'descr': '<f4', 'fortran_order': False, 'shape': " + str((1,) * 40) + "}"), "at most 32"),
        (with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (1,,), }"), "shape"),
        (with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (1), }"), "shape"),
        (with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (" + "9" * 200 + ",), }"), "shape"),
        (with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (1,)"), "cannot be read"),
        (with_header("{'descr': '<f4' 'fortran_order': False, 'shape': (1,)}"), "cannot be read"),
        (with_header("{'descr': ['<f4'], 'fortran_order': False, 'shape': (1,)}"), "dtype"),
        (with_header("{'descr': '<f4', 'fortran_order': False}"), "shape"),
        (with_header("(" * 5000), "cannot be read"),
        (with_header("__import__('os')"), "cannot be read"),
        (with_header("[1]"), "not a dict"),
        (with_header("{}", version=9), "version 9"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + b"{}" * 10, "header of 4294967295 bytes"),
        (b"\x93NUMPY\x02\x00\xff", "not an npy file"),
    ],
)
def test_hostile_npy_is_400_and_nothing_is_unpickled(body: bytes, part: str) -> None:
    with pytest.raises(BadRequest) as caught:
        read_npy(body)
    assert part in str(caught.value)


@given(st.binary(max_size=200), st.integers(0, 200))
def test_damaged_npy_is_read_or_400(noise: bytes, place: int) -> None:
    good = saved(np.arange(6.0))
    with contextlib.suppress(BadRequest):
        read_npy(good[:place] + noise + good[place + len(noise) :])


def test_written_npy_is_read_by_numpy() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    body = write_npy(array)
    np.testing.assert_array_equal(np.load(io.BytesIO(body), allow_pickle=False), array)
    assert len(body) == npy_bytes((2, 3))


def test_npz_round_trip_with_numpy() -> None:
    arrays = {"a": np.arange(3.0), "b.c": np.ones((2, 2), np.float32)}
    with np.load(io.BytesIO(write_npz(arrays)), allow_pickle=False) as found:
        assert {name: found[name].tolist() for name in found} == {
            name: array.tolist() for name, array in arrays.items()
        }
    for save in (np.savez, np.savez_compressed):
        stream = io.BytesIO()
        save(stream, **arrays)
        assert {name: array.tolist() for name, array in read_npz(stream.getvalue(), 10_000).items()} == {
            name: array.tolist() for name, array in arrays.items()
        }


def test_an_npz_bomb_is_413_before_unpacking() -> None:
    stream = io.BytesIO()
    np.savez_compressed(stream, x=np.zeros(1_000_000))
    with pytest.raises(TooLarge, match="unpacks to 8000"):
        read_npz(stream.getvalue(), 1_000_000)


def test_an_npz_of_many_members_is_413() -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for index in range(65):
            archive.writestr(f"{index}.npy", b"")
    with pytest.raises(TooLarge, match="65 members"):
        read_npz(stream.getvalue(), 1_000_000)


def test_members_are_counted_before_the_directory_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipfile, "ZipFile", None)
    with pytest.raises(TooLarge, match="500000 members; at most 64"):
        read_npz(b"PK\1\2" * 500_000, 10_000_000)


@given(st.binary(max_size=60), st.integers(0, 400))
def test_damaged_npz_is_read_or_refused(noise: bytes, place: int) -> None:
    good = write_npz({"x": np.arange(6.0)})
    with contextlib.suppress(BadRequest, TooLarge):
        read_npz(good[:place] + noise + good[place + len(noise) :], 10_000)


def test_a_pickle_inside_npz_is_400() -> None:
    stream = io.BytesIO()
    np.savez(stream, x=np.array([Evil()], dtype=object))
    with pytest.raises(BadRequest, match="member 'x' of the npz body"):
        read_npz(stream.getvalue(), 10_000)
