"""TFRecord files: whole or absent when written, and every damage found when read."""

import os
import resource
import struct
import tracemalloc
from pathlib import Path

import google_crc32c
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from kpdata.core.errors import DatasetError
from kpdata.shards import tfrecord
from kpdata.storage.atomic import temporary_beside

PAYLOADS = [b"first", b"", b"the third record"]
OFFSETS = [0, 21, 37]
MIB = 1 << 20


def payloads(path: Path) -> list[bytes]:
    return [payload for _, payload in tfrecord.read(path)]


def masked_crc(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


@pytest.fixture
def path(tmp_path):
    """A small file of three records."""
    path = tmp_path / "train-00000-of-00001.tfrecord"
    with tfrecord.Writer(path) as writer:
        for payload in PAYLOADS:
            writer.write(payload)
    return path


def test_records_come_back_with_their_offsets(path):
    assert list(tfrecord.read(path)) == list(zip(OFFSETS, PAYLOADS, strict=True))


@given(st.lists(st.lists(st.binary(max_size=300), max_size=3), max_size=8), st.booleans())
def test_reading_gives_back_what_was_written_in_parts(tmp_path_factory, records, durable):
    path = tmp_path_factory.mktemp("records") / "a.tfrecord"
    with tfrecord.Writer(path, durable) as writer:
        for parts in records:
            writer.write(*parts)
    data = path.read_bytes()
    assert payloads(path) == [b"".join(parts) for parts in records]
    assert (writer.records, writer.bytes) == (len(records), len(data))
    assert writer.blake3 == blake3(data).hexdigest()


def test_a_file_of_many_blocks_is_hashed_and_written_in_order(tmp_path):
    path = tmp_path / "a.tfrecord"
    written = [bytes([number]) * (MIB + number) for number in range(11)]
    with tfrecord.Writer(path) as writer:
        for payload in written:
            writer.write(payload[:1000], payload[1000:])
    assert payloads(path) == written
    assert writer.blake3 == blake3(path.read_bytes()).hexdigest()
    assert writer.bytes == path.stat().st_size


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="this system takes no advice")
@pytest.mark.parametrize("durable", [True, False])
def test_a_durable_file_is_on_its_way_to_disk_before_it_ends(tmp_path, monkeypatch, durable):
    begun = []

    def advise(file, start, length, advice):
        begun.append((start, os.fstat(file).st_size))

    monkeypatch.setattr(os, "posix_fadvise", advise)
    with tfrecord.Writer(tmp_path / "a.tfrecord", durable) as writer:
        for _ in range(3):
            writer.write(bytes(MIB))
    block = MIB + 16
    blocks = [(number * block, (number + 1) * block) for number in range(3)]
    assert begun[:3] == (blocks if durable else [])


def test_the_frame_is_length_crc_payload_crc(tmp_path):
    path = tmp_path / "a.tfrecord"
    with tfrecord.Writer(path) as writer:
        writer.write(b"payload")
    length = struct.pack("<Q", 7)
    expected = length + masked_crc(length) + b"payload" + masked_crc(b"payload")
    assert path.read_bytes() == expected


def test_reading_may_begin_at_any_record(path):
    assert list(tfrecord.read(path, OFFSETS[1])) == list(zip(OFFSETS, PAYLOADS, strict=True))[1:]
    assert list(tfrecord.read(path, path.stat().st_size)) == []


@pytest.mark.parametrize(
    ("field", "place", "message"),
    [
        ("length", 0, "the length's CRC does not match"),
        ("CRC of the length", 8, "the length's CRC does not match"),
        ("payload", 12, "the payload's CRC does not match"),
        ("CRC of the payload", 28, "the payload's CRC does not match"),
    ],
)
@pytest.mark.parametrize("bit", range(8))
def test_a_flipped_bit_is_found_in_every_field(path, field, place, message, bit):
    data = bytearray(path.read_bytes())
    data[OFFSETS[2] + place] ^= 1 << bit
    path.write_bytes(data)
    with pytest.raises(DatasetError, match=f"{path}: record 2 at byte 37: {message}"):
        payloads(path)


def test_no_single_flipped_bit_goes_unseen(path):
    data = path.read_bytes()
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :])
        with pytest.raises(DatasetError, match=r"record \d at byte \d+: "):
            payloads(path)


def test_a_file_cut_at_any_byte_is_found_unless_it_ends_with_a_record(path):
    data = path.read_bytes()
    for cut in range(len(data)):
        path.write_bytes(data[:cut])
        if cut in OFFSETS:
            assert payloads(path) == PAYLOADS[: OFFSETS.index(cut)]
            continue
        number = sum(cut > offset for offset in OFFSETS) - 1
        with pytest.raises(DatasetError, match=rf"record {number} at byte {OFFSETS[number]}: "):
            payloads(path)


@pytest.mark.parametrize("length", [6, 10**6, 2**31, 2**62, 2**64 - 1])
def test_a_forged_length_with_a_right_crc_allocates_nothing(tmp_path, length):
    path = tmp_path / "a.tfrecord"
    header = struct.pack("<Q", length)
    path.write_bytes(header + masked_crc(header) + b"12345" + masked_crc(b"12345"))
    tracemalloc.start()
    with pytest.raises(DatasetError, match=f"claims {length:,} bytes, more than the file holds"):
        payloads(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MIB


def test_a_forged_length_with_a_wrong_crc_is_not_believed(path):
    path.write_bytes(struct.pack("<Q", 2**62) + path.read_bytes()[8:])
    with pytest.raises(DatasetError, match="record 0 at byte 0: the length's CRC does not match"):
        payloads(path)


def test_a_record_over_the_limit_is_refused(path, monkeypatch):
    monkeypatch.setattr(tfrecord, "MAX_RECORD_BYTES", 4)
    with pytest.raises(DatasetError, match="record 0 at byte 0: claims 5 bytes"):
        payloads(path)


def write_and_stop(path: Path, payloads: list[bytes], stop: BaseException | None) -> None:
    with tfrecord.Writer(path) as writer:
        for payload in payloads:
            writer.write(payload)
        if stop:
            raise stop


@pytest.mark.parametrize("written", [0, 10, 9 * MIB])
def test_an_exception_leaves_nothing(tmp_path, written):
    with pytest.raises(RuntimeError, match="stop"):
        write_and_stop(tmp_path / "a.tfrecord", [bytes(written)], RuntimeError("stop"))
    assert list(tmp_path.iterdir()) == []


def test_an_exception_leaves_the_old_file_alone(path):
    with pytest.raises(KeyboardInterrupt):
        write_and_stop(path, [b"new"], KeyboardInterrupt())
    assert payloads(path) == PAYLOADS
    assert list(path.parent.iterdir()) == [path]


@pytest.fixture
def small_disk():
    """No file may grow beyond 6 MiB, as if the disk were full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6 * MIB, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("small_disk")
@pytest.mark.parametrize("size", [1000, MIB, 5 * MIB, 9 * MIB])
def test_a_full_disk_ends_in_an_os_error_and_leaves_nothing(tmp_path, size):
    with pytest.raises(OSError, match="File too large"):
        write_and_stop(tmp_path / "a.tfrecord", [bytes(size)] * (13 * MIB // size), None)
    assert list(tmp_path.iterdir()) == []


def test_nothing_stands_under_the_final_name_before_the_end(tmp_path):
    with tfrecord.Writer(tmp_path / "a.tfrecord") as writer:
        writer.write(bytes(9 * MIB))
        (unfinished,) = tmp_path.iterdir()
        assert unfinished.name.startswith(".a.tfrecord.")
        assert unfinished.suffix == ".tmp"
    assert [path.name for path in tmp_path.iterdir()] == ["a.tfrecord"]


def test_temporary_names_never_meet(tmp_path):
    names = {temporary_beside(tmp_path / "a") for _ in range(100)}
    assert len(names) == 100
    assert {name.parent for name in names} == {tmp_path}


def test_a_durable_file_is_synced_before_it_is_renamed(tmp_path, monkeypatch):
    events = []
    for name in ("fsync", "replace"):
        real = getattr(tfrecord.os, name)
        monkeypatch.setattr(
            tfrecord.os, name, lambda *a, name=name, real=real: (events.append(name), real(*a))
        )
    for durable, expected in ((True, ["fsync", "replace"]), (False, ["replace"])):
        events.clear()
        with tfrecord.Writer(tmp_path / "a", durable):
            pass
        assert events == expected
