import os
import struct

import numpy as np
import pytest
from tflite_files import tflite_bytes

from kpdata.core.errors import KpdataError
from kpdata.train.models.tflite_file import read_convolutions

rng = np.random.default_rng(0)
WEIGHTS = [
    (rng.normal(size=(3, 3, 3, 4)), rng.normal(size=4)),
    (rng.normal(size=(5, 5, 4, 1)), rng.normal(size=4)),
    (rng.normal(size=(1, 1, 4, 2)), rng.normal(size=2)),
]


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_convolutions_are_read_in_their_order(tmp_path, dtype):
    path = tmp_path / "a.tflite"
    path.write_bytes(tflite_bytes(WEIGHTS, dtype))
    found = read_convolutions(path)
    assert len(found) == 3
    for (kernel, bias), read in zip(WEIGHTS, found, strict=True):
        np.testing.assert_array_equal(read.kernel, kernel.astype(dtype).astype(np.float32))
        np.testing.assert_array_equal(read.bias, bias.astype(dtype).astype(np.float32))
        assert read.kernel.dtype == read.bias.dtype == np.float32


def spoilt(change):
    data = bytearray(tflite_bytes(WEIGHTS, np.float32))
    change(data)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is no .tflite file"),
        (b"PK\3\4TFL3", "damaged"),
        (spoilt(lambda d: d.__setitem__(slice(4, 8), b"TFL4")), "does not say TFL3"),
        (spoilt(lambda d: d.__setitem__(slice(0, 4), struct.pack("<I", 2**31))), "damaged"),
        (tflite_bytes(WEIGHTS, np.float32)[:200], "damaged"),
        (tflite_bytes([(k * np.nan, b) for k, b in WEIGHTS]), "weights that are no numbers"),
        (tflite_bytes(WEIGHTS, np.int8), "weights of type 9, expected float32 or float16"),
    ],
)
def test_what_is_no_float_network_is_refused_in_one_line(tmp_path, data, says):
    path = tmp_path / "a.tflite"
    path.write_bytes(data)
    with pytest.raises(KpdataError, match=says) as error:
        read_convolutions(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_none_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.tflite")
    for path in (tmp_path / "a.tflite", tmp_path, tmp_path / "gone.tflite"):
        with pytest.raises(KpdataError, match="cannot be read"):
            read_convolutions(path)
