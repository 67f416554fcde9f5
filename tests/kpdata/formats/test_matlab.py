"""Our reader of MATLAB files agrees with SciPy's on sound ones, and survives the others."""

import io
import struct
import tracemalloc
import zlib
from functools import partial

import numpy as np
import pytest
import scipy.io
from hypothesis import given
from hypothesis import strategies as st

from kpdata.core.errors import FormatError
from kpdata.formats import recognise
from kpdata.formats._lib.matlab import (
    Variable,
    number,
    numbers,
    read_array,
    read_variable,
    records,
    text,
)

BUDGET = 1 << 20


def saved(compress: bool, **variables: object) -> bytes:
    out = io.BytesIO()
    scipy.io.savemat(out, variables, do_compression=compress)
    return out.getvalue()


@given(
    st.lists(st.integers(1, 5), min_size=2, max_size=4),
    st.sampled_from(["f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"]),
    st.booleans(),
    st.integers(0, 2**32),
)
def test_arrays_of_all_numbers_and_shapes_are_those_that_scipy_reads(shape, dtype, compress, seed):
    array = np.random.default_rng(seed).integers(0, 100, shape).astype(dtype)
    others = {"before": "text", "cells": np.array([1, "x"], object), "s": {"a": np.eye(2)}}
    data = saved(compress, **others, joints=array, z=np.eye(3))
    expected = scipy.io.loadmat(io.BytesIO(data))["joints"]
    found = read_array(data, "joints", BUDGET)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, expected)


def test_a_big_endian_file_is_read():
    little = saved(False, joints=np.arange(12.0).reshape(3, 4))
    assert little[126:128] == b"IM"
    numbers = np.arange(12.0).reshape(3, 4)
    body = struct.pack(">IIII", 6, 8, 6, 0) + struct.pack(">IIii", 5, 8, 3, 4)
    body += struct.pack(">II", 1, 6) + b"joints\0\0" + struct.pack(">II", 9, 96)
    body += numbers.astype(">f8").tobytes(order="F")
    data = little[:124] + b"\x01\x00MI" + struct.pack(">II", 14, len(body)) + body
    np.testing.assert_array_equal(read_array(data, "joints", BUDGET), numbers)


@pytest.mark.parametrize("name", [b"a\nb\x1b[2J", b"\r\r\r\r\r\r\r\r", b"\x9b31m\x85x\0\0"])
def test_names_out_of_a_file_keep_a_message_on_its_line(tmp_path, name):
    data = saved(False, variable=1.0).replace(b"variable", name.ljust(8, b"x"))
    path = tmp_path / "a.mat"
    path.write_bytes(data)
    for attempt in (partial(read_variable, data, "joints", BUDGET), partial(recognise, path)):
        with pytest.raises(FormatError) as refused:
            attempt()
        assert str(refused.value).isprintable()


def test_a_bomb_is_inflated_no_further_than_the_budget():
    body = saved(False, joints=np.zeros((3, 14, 2)))[128:]
    packed = zlib.compress(body + bytes(100 << 20), 9)
    data = saved(False, a=1.0)[:128] + struct.pack("<II", 15, len(packed)) + packed
    tracemalloc.start()
    with pytest.raises(FormatError, match=r"inflates to more than 1,048,576 bytes"):
        read_array(data, "joints", BUDGET)
    assert tracemalloc.get_traced_memory()[1] < 4 * BUDGET
    tracemalloc.stop()


def test_many_bombs_share_one_budget():
    packed = zlib.compress(saved(False, a=np.zeros((100, 1000)))[128:], 9)
    one = struct.pack("<II", 15, len(packed)) + packed
    with pytest.raises(FormatError, match="inflates to more than"):
        read_array(saved(False, a=1.0)[:128] + one * 2, "joints", BUDGET)


@pytest.mark.parametrize("claim", [2**31, 2**32 - 8, 400_000])
def test_a_claimed_length_allocates_nothing(claim):
    data = bytearray(saved(False, joints=np.zeros((3, 14, 2))))
    place = data.index(struct.pack("<II", 9, 3 * 14 * 2 * 8)) + 4
    struct.pack_into("<I", data, place, claim)
    with pytest.raises(FormatError, match=f"claims {claim:,} bytes, more than there are"):
        read_array(bytes(data), "joints", BUDGET)


def test_small_numbers_that_would_grow_too_large_are_refused():
    data = saved(False, joints=np.zeros((3, 14, 4000), np.uint8))
    with pytest.raises(FormatError, match="is larger than 1,048,576 bytes"):
        read_array(data, "joints", BUDGET)


def test_a_file_that_is_not_matlabs_is_not_to_be_downloaded_again():
    with pytest.raises(FormatError, match=r"not a MATLAB file .* give the dataset's own"):
        read_array(b"<html>" * 100, "joints", 1 << 20)


def of(value: object, compress: bool = False) -> Variable:
    return read_variable(saved(compress, it=value), "it", BUDGET)


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20))
def test_text_is_what_was_saved(words):
    assert text(of(words), 20) == words


def test_text_of_utf_16_follows_the_files_byte_order():
    data = saved(False, it="ab")
    utf_8 = struct.pack("<HH", 16, 2) + b"ab\0\0"
    assert utf_8 in data
    wide = data.replace(utf_8, struct.pack("<HH", 17, 4) + "äß".encode("utf-16-le"))
    assert text(read_variable(wide, "it", BUDGET), 2) == "äß"


@pytest.mark.parametrize("value", [7, -1.5, np.uint8(3), np.bool_(True), [[2]]])
def test_one_number_is_what_was_saved(value):
    assert number(of(value)) == np.float64(value)


def test_what_is_empty_is_no_number_no_text_and_no_struct():
    empty = of(np.zeros((0, 0)))
    assert number(empty) is None
    assert text(empty, 1) == ""
    assert list(records(empty)) == []


def test_structs_come_one_by_one_in_matlabs_order():
    array = np.empty((2, 2), [("row", object), ("inner", object)])
    for row, column in np.ndindex(2, 2):
        array[row, column] = 10 * row + column, {"deep": np.arange(3) + row}
    found = list(records(of(array, compress=True)))
    assert [number(record["row"]) for record in found] == [0, 10, 1, 11]
    (inner,) = records(found[1]["inner"])
    assert numbers(inner["deep"], BUDGET).tolist() == [[1, 2, 3]]


@pytest.mark.parametrize(
    ("read", "value", "fault"),
    [
        (number, "text", "it is a MATLAB char: expected an array of numbers"),
        (number, 1j, "it is a complex array"),
        (number, np.eye(2), r"it has shape \(2, 2\): expected one number"),
        (partial(text, most=9), 5.0, "it is a MATLAB double: expected text"),
        (partial(text, most=9), "0123456789", "it has 10 characters: expected at most 9"),
        (lambda variable: list(records(variable)), 5.0, "it is a MATLAB double: expected a struct"),
    ],
)
def test_what_holds_something_else_says_what(read, value, fault):
    with pytest.raises(FormatError, match=fault):
        read(of(value))


def test_a_claimed_number_of_structs_allocates_nothing():
    data = bytearray(saved(False, it={"a": 1.0}))
    place = data.index(struct.pack("<IIii", 5, 8, 1, 1)) + 8
    struct.pack_into("<ii", data, place, 2**31 - 1, 2**31 - 1)
    with pytest.raises(FormatError, match="it claims 4,611,686,014,132,420,609 structs"):
        list(records(read_variable(bytes(data), "it", BUDGET)))


def struct_of_fields(width: int, names: bytes) -> bytes:
    """A file whose variable ``it`` is a 1 × 1 struct, and ends behind the names of its fields."""
    body = struct.pack("<IIII", 6, 8, 2, 0) + struct.pack("<IIii", 5, 8, 1, 1)
    body += struct.pack("<HHI", 1, 2, int.from_bytes(b"it", "little"))
    body += struct.pack("<HHi", 5, 4, width) + struct.pack("<II", 1, len(names)) + names
    return saved(False, a=1.0)[:128] + struct.pack("<II", 14, len(body)) + body


def test_a_struct_without_fields_is_one_of_nothing():
    assert list(records(read_variable(struct_of_fields(1, b""), "it", BUDGET))) == [{}]


@pytest.mark.parametrize(
    ("width", "names", "fault"),
    [
        (0, b"ab", "2 bytes of names of 0 each"),
        (65, bytes(65), "65 bytes of names of 65 each"),
        (4, b"abcde", "5 bytes of names of 4 each"),
        (1, bytes(4097), "4,097 bytes of names"),
        (2, b"a\0a\0", "two fields of one name"),
    ],
)
def test_names_of_fields_that_no_file_has_are_refused(width, names, fault):
    with pytest.raises(FormatError, match=f"it has {fault}"):
        list(records(read_variable(struct_of_fields(width, names), "it", BUDGET)))


def test_many_bytes_of_names_allocate_nothing():
    variable = read_variable(struct_of_fields(1, bytes(8 << 20)), "it", BUDGET)
    tracemalloc.start()
    with pytest.raises(FormatError, match="8,388,608 bytes of names of 1 each"):
        list(records(variable))
    assert tracemalloc.get_traced_memory()[1] < BUDGET
    tracemalloc.stop()


def test_axes_that_are_too_long_together_are_refused_though_they_hold_nothing():
    data = bytearray(saved(False, joints=np.zeros((0, 2, 2, 2))))
    place = data.index(struct.pack("<iiii", 0, 2, 2, 2))
    struct.pack_into("<iii", data, place + 4, *(2**31 - 1,) * 3)
    with pytest.raises(FormatError, match="a damaged one"):
        read_array(bytes(data), "joints", BUDGET)
