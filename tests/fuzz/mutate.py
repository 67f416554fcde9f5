"""How a valid input becomes a hostile one: blindly, and by what its format is made of.

Every mutator takes (rng, data, others) and returns bytes; ``others`` are the target's other seeds.
"""

import re
import struct
import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from random import Random

import google_crc32c

from kpdata.shards.wire.example_pb2 import Example

Mutator = Callable[[Random, bytes, Sequence[bytes]], bytes]

LARGEST = 1 << 20
"""Bytes of an input; longer ones are cut."""

NUMBERS = (
    0, 1, 2, 3, 7, 8, 14, 127, 128, 255, 256, 1000, 32767, 32768, 65535, 65536, 10**6,
    2**24, 2**28, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1,
)  # fmt: skip
FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-45, 1e7, -1e8, 3.4e38, 1e308, float("inf"), float("nan"))

LITERALS = (
    b"null", b"true", b"false", b"0", b"-1", b"1", b"2", b"3", b"0.5", b"-0.0", b"1e-320", b"1e7",
    b"-1e9", b"1e38", b"3.5e38", b"1e308", b"1e309", b"-1e400", b"NaN", b"Infinity", b"-Infinity",
    b"2147483648", b"9007199254740993", b"9223372036854775807", b"9223372036854775808",
    b"-9223372036854775809", b"18446744073709551616", b"1" + b"0" * 40, b"9" * 400, b"9" * 5000,
    b'""', b'"a"', b'"../../etc/passwd"', b'"/etc/passwd"', rb'"\u0000"', rb'"\ud800"', b'"\xff"',
    b'"\xed\xa0\x80"', rb'"\u001b[31m"', '"é日本"'.encode(), b'"left"', b'"nose"',
    b'"' + b"x" * 3000 + b'"',
    b"[]", b"{}", b"[[]]", b'[{}]', b'{"a": 1}', b"[0, 0, 0]", b"[1, 2]", b"[NaN, 1, 2]",
    b"[0, 0, 1e300, 1e300]", b"[5, 5, 1, 1]", b"[" * 10 + b"]" * 10, b"[" * 17 + b"]" * 17,
    b"[" * 600 + b"]" * 600, b"[" * 5000 + b"]" * 5000, b"[" * 3000,
    b'{"a":' * 300 + b"1" + b"}" * 300, b'{"a":' * 5000, b"[" + b"0," * 2000 + b"0]",
    b'[' + b'"a",' * 1200 + b'"b"]', b"/* x */ 1", b"1 2", b"01", b"+1", b".5",
    b"1_0", b"tru", b"'a'",
)  # fmt: skip
"""What stands in place of a JSON value."""

_JSON_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^\s{}\[\]:,"]+')


def plain(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Flip, overwrite, cut, insert, repeat, splice: one to four times."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        _PLAIN[rng.randrange(len(_PLAIN))](rng, changed, others)
    return bytes(changed[:LARGEST])


def _place(rng: Random, data: bytearray) -> int:
    return rng.randrange(len(data)) if data else 0


def _flip(rng: Random, data: bytearray, others: Sequence[bytes]) -> None:
    if data:
        data[_place(rng, data)] ^= 1 << rng.randrange(8)


def _overwrite(rng: Random, data: bytearray, others: Sequence[bytes]) -> None:
    if data:
        data[_place(rng, data)] = rng.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF, rng.randrange(256)))


def _cut(rng: Random, data: bytearray, others: Sequence[bytes]) -> None:
    del data[_place(rng, data) :]


def _remove(rng: Random, data: bytearray, others: Sequence[bytes]) -> None:
    start = _place(rng, data)
    del data[start : start + rng.choice((1, 2, 4, 8, 16, 100, 1000))]


def _insert(rng: Random, data: bytearray, others: Sequence[bytes]) -> None:
    start = _place(rng, data)
    data[start:start] = rng.choice(
        (b"\0", b"\xff", b"\0" * 64, rng.randbytes(rng.randrange(1, 40)))
    )


def _repeat(rng: Random, data: bytearray, others: Sequence[bytes]) -> None:
    start, length = _place(rng, data), rng.choice((1, 4, 12, 40, 200))
    piece = bytes(data[start : start + length])
    data[start:start] = piece * rng.choice((1, 2, 10, 300))


def _splice(rng: Random, data: bytearray, others: Sequence[bytes]) -> None:
    other = rng.choice(others)
    data[_place(rng, data) :] = other[rng.randrange(len(other) + 1) :]


def _number(rng: Random, data: bytearray, others: Sequence[bytes]) -> None:
    """Overwrite 1 to 8 bytes, mostly aligned, with a telling number of either byte order."""
    width = rng.choice((1, 2, 4, 4, 8))
    start = _place(rng, data)
    start -= start % width if rng.random() < 0.7 else 0
    if start + width > len(data):
        return
    if width >= 4 and rng.random() < 0.2:
        number = struct.pack(rng.choice("<>") + ("f" if width == 4 else "d"), _float(rng, width))
    else:
        value = rng.choice(NUMBERS) % (1 << (8 * width))
        number = value.to_bytes(width, rng.choice(("little", "big")))
    data[start : start + width] = number


def _float(rng: Random, width: int) -> float:
    value = rng.choice(FLOATS)
    return float("inf") if width == 4 and abs(value) > 3.4e38 else value


_PLAIN = (
    _flip, _flip, _overwrite, _overwrite, _number, _number, _number, _cut, _remove, _insert,
    _repeat, _splice,
)  # fmt: skip


@lru_cache(maxsize=64)
def _json_spans(text: bytes) -> tuple[tuple[int, int, int], ...]:
    """(begin with any key, begin of the value, end) of every value of a JSON text."""
    spans: list[tuple[int, int, int]] = []
    open_: list[tuple[int, int]] = []
    begin: int | None = None
    previous: re.Match[bytes] | None = None
    for token in _JSON_TOKEN.finditer(text):
        mark = token[0]
        if mark == b":":
            assert previous is not None
            begin = previous.start()
            spans.pop()  # that was a key
        elif mark in (b"{", b"["):
            open_.append((token.start() if begin is None else begin, token.start()))
            begin = None
        elif mark in (b"}", b"]"):
            spans.append((*open_.pop(), token.end()))
        elif mark != b",":
            spans.append((token.start() if begin is None else begin, token.start(), token.end()))
            begin = None
        previous = token
    return tuple(spans)


def json_text(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Exchange, drop, double or wrap JSON values; now and then :func:`plain`."""
    if rng.random() < 0.15:
        return plain(rng, data, others)
    spans = _json_spans(data)
    chosen = sorted(rng.sample(spans, min(len(spans), rng.choice((1, 1, 1, 2, 3)))), reverse=True)
    end = len(data) + 1
    for span in chosen:
        if span[2] > end:  # inside one that was changed already
            continue
        end = span[0]
        data = _change_value(rng, data, span, spans)
    return data[:LARGEST]


def _change_value(
    rng: Random, data: bytes, span: tuple[int, int, int], spans: Sequence[tuple[int, int, int]]
) -> bytes:
    begin, start, end = span
    kind = rng.random()
    if kind < 0.6:
        return data[:start] + rng.choice(LITERALS) + data[end:]
    if kind < 0.7:  # another value of the same text
        _, other, other_end = rng.choice(spans)
        return data[:start] + data[other:other_end][:5000] + data[end:]
    if kind < 0.8:  # twice, or very often
        times = rng.choice((1, 1, 2, 20, 1200))
        return data[:end] + (b"," + data[begin:end][:200]) * times + data[end:]
    if kind < 0.9:  # away, with its comma
        rest = data[end:].lstrip()
        return data[:begin] + (rest[1:] if rest[:1] == b"," else rest)
    depth = rng.choice((1, 2, 15, 16, 400))
    return data[:start] + b"[" * depth + data[start:end] + b"]" * depth + data[end:]


def json_lines(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """:func:`json_text` on one line of several."""
    lines = data.split(b"\n")
    place = rng.randrange(len(lines))
    if not lines[place] or rng.random() < 0.1:
        return plain(rng, data, others)
    lines[place] = json_text(rng, lines[place], others)
    return b"\n".join(lines)


CELLS = (
    b"", b"nan", b"NaN", b"inf", b"-1e9", b"1e400", b"0", b"1_0", b"0x1", b"x", b"y", b"likelihood",
    b"single", b"scorer", b"coords", b"../../a.png", b"/etc/passwd", b"C:\\a.png", b"\0", b"\xff",
    b'"', b'"a', b'"1,5"', b'"a\nb"', b"\r", b";", "é日本".encode(), b"9" * 5000, b"a" * 140_000,
    b"," * 2000, b"a,b" * 1000,
)  # fmt: skip
"""What stands in place of a cell."""


def csv_text(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Exchange, drop or double cells and rows; now and then :func:`plain`."""
    if rng.random() < 0.2:
        return plain(rng, data, others)
    rows = [row.split(b",") for row in data.split(b"\n")]
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        row = rng.choice(rows)
        place = rng.randrange(len(row)) if row else 0
        kind = rng.random()
        if kind < 0.5:
            row[place : place + 1] = [rng.choice(CELLS)]
        elif kind < 0.7:  # another cell of the same text
            row[place : place + 1] = [rng.choice(rng.choice(rows) or [b""])]
        elif kind < 0.8:
            row[place : place + 1] = []
        elif kind < 0.9:
            row[place:place] = row[place:] * rng.choice((1, 2, 50))
        elif kind < 0.95:
            rows.insert(rng.randrange(len(rows)), list(row))
        elif len(rows) > 1:
            rows.remove(row)
    return b"\n".join(map(b",".join, rows))[:LARGEST]


def json_or_plain(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """:func:`json_text` where that is what it is."""
    return (json_text if data[:1] == b"{" else plain)(rng, data, others)


def masked_crc(data: bytes) -> bytes:
    """As TFRecord has it."""
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def frame(payload: bytes, length: int | None = None) -> bytes:
    """A TFRecord frame with right checksums, whatever length it claims."""
    head = struct.pack("<Q", (len(payload) if length is None else length) & (1 << 64) - 1)
    return head + masked_crc(head) + payload + masked_crc(payload)


def unframe(data: bytes) -> list[bytes]:
    """The payloads of a sound TFRecord file."""
    payloads, offset = [], 0
    while offset < len(data):
        (length,) = struct.unpack_from("<Q", data, offset)
        payloads.append(data[offset + 12 : offset + 12 + length])
        offset += length + 16
    return payloads


def framed(change: Mutator) -> Mutator:
    """Change payloads and claims behind right checksums, or the file's bytes as they are."""

    def mutate(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
        if rng.random() < 0.3:
            return plain(rng, data, others)
        payloads = unframe(data)
        place = rng.randrange(len(payloads))
        kind = rng.random()
        if kind < 0.15:
            payloads.insert(place, rng.choice(payloads))
        elif kind < 0.25:
            del payloads[place]
        elif kind < 0.35:
            rng.shuffle(payloads)
        elif kind < 0.85:
            payloads[place] = change(rng, payloads[place], payloads)
        frames = [frame(payload) for payload in payloads]
        if kind >= 0.85:
            frames[place] = frame(payloads[place], rng.choice(NUMBERS) - rng.choice((0, 1, 16)))
        return b"".join(frames)[:LARGEST]

    return mutate


def record(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Change the features of a tf.train.Example, or its bytes."""
    if rng.random() < 0.25:
        return plain(rng, data, others)
    example = Example.FromString(data)
    features = example.features.feature
    for _ in range(rng.choice((1, 1, 2, 5))):
        name = rng.choice(sorted(features))
        _FEATURE_CHANGES[rng.randrange(len(_FEATURE_CHANGES))](rng, features, name)
    changed = example.SerializeToString()
    if rng.random() < 0.05:
        other = rng.choice(others)  # a message behind a message: fields repeated, the last wins
        changed += other[: rng.randrange(len(other) + 1)] if rng.random() < 0.5 else other
    return changed[:LARGEST]


def _values(feature: object) -> tuple[str | None, list[object]]:
    kind = feature.WhichOneof("kind")  # type: ignore[attr-defined]
    return kind, list(getattr(feature, kind).value) if kind else []


def _put(feature: object, kind: str | None, values: Sequence[object]) -> None:
    feature.Clear()  # type: ignore[attr-defined]
    if kind:
        getattr(feature, kind).value.extend(values)


def _odd(rng: Random, kind: str | None) -> object:
    if kind == "float_list":
        return rng.choice(
            [f for f in FLOATS if abs(f) < 3.5e38 or f in (float("inf"),)] + [float("nan")]
        )
    if kind == "int64_list":
        return rng.choice([n for n in NUMBERS if n < 2**63]) * rng.choice((1, 1, -1))
    return rng.choice(
        (b"", b"\xff\xfe", b"../../x", b"\0", b"jpeg", b"png", b"a" * 3000, b"\xff\xd8\xff")
    )


def _one_value(rng: Random, features: object, name: str) -> None:
    kind, values = _values(features[name])  # type: ignore[index]
    if values:
        values[rng.randrange(len(values))] = _odd(rng, kind)
        _put(features[name], kind, values)  # type: ignore[index]


def _all_values(rng: Random, features: object, name: str) -> None:
    kind, values = _values(features[name])  # type: ignore[index]
    _put(features[name], kind, [_odd(rng, kind)] * len(values))  # type: ignore[index]


def _other_length(rng: Random, features: object, name: str) -> None:
    kind, values = _values(features[name])  # type: ignore[index]
    _put(features[name], kind, (values or [_odd(rng, kind)]) * rng.choice((0, 2, 3, 50)))  # type: ignore[index]


def _other_kind(rng: Random, features: object, name: str) -> None:
    kind = rng.choice(("bytes_list", "float_list", "int64_list", None))
    _put(features[name], kind, [_odd(rng, kind)] if kind else [])  # type: ignore[index]


def _away(rng: Random, features: object, name: str) -> None:
    del features[name]  # type: ignore[attr-defined]


def _swap(rng: Random, features: object, name: str) -> None:
    other = rng.choice(sorted(features))  # type: ignore[call-overload]
    mine, theirs = _values(features[name]), _values(features[other])  # type: ignore[index]
    _put(features[name], *theirs)  # type: ignore[index]
    _put(features[other], *mine)  # type: ignore[index]


def _image(rng: Random, features: object, name: str) -> None:
    kind, values = _values(features["image/encoded"])  # type: ignore[index]
    if values and isinstance(values[0], bytes):
        _put(features["image/encoded"], kind, [picture(rng, values[0], (values[0],))])  # type: ignore[index]


def _many_instances(rng: Random, features: object, name: str) -> None:
    """All lists as long as for so many instances: consistent, and large."""
    times = rng.choice((0, 2, 40))
    if len(features["image/object/id"].int64_list.value) > 100:  # type: ignore[index]
        times = 0
    for each in features:  # type: ignore[attr-defined]
        if each.startswith(("image/object", "kpdata/object")):
            kind, values = _values(features[each])  # type: ignore[index]
            _put(features[each], kind, values * times)  # type: ignore[index]


_FEATURE_CHANGES = (
    _one_value, _one_value, _one_value, _all_values, _other_length, _other_kind, _away, _swap,
    _image, _many_instances,
)  # fmt: skip


def picture(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Change a PNG's chunks behind right checksums, a JPEG's segments, or any picture's bytes."""
    if data.startswith(b"\x89PNG") and rng.random() < 0.7:
        return _png(rng, data)
    if data.startswith(b"\xff\xd8") and rng.random() < 0.5:
        return _jpeg(rng, data)
    return plain(rng, data, others)


def _png(rng: Random, data: bytes) -> bytes:
    chunks, offset = [], 8
    while offset + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, offset)
        chunks.append([data[offset + 4 : offset + 8], data[offset + 8 : offset + 8 + length]])
        offset += length + 12
    place = rng.randrange(len(chunks))
    kind = rng.random()
    if kind < 0.35 and chunks[0][0] == b"IHDR":  # the size that it claims
        sides = [rng.choice((0, 1, 5, 100, 3000, 9000, 20000, 2**31 - 1)) for _ in range(2)]
        chunks[0][1] = struct.pack(">II", *sides) + chunks[0][1][8:]
    elif kind < 0.75:
        chunks[place][1] = plain(rng, chunks[place][1], [chunk[1] for chunk in chunks])
    elif kind < 0.85:
        chunks.insert(place, rng.choice(chunks))
    elif kind < 0.95:
        name = rng.choice(
            (b"eXIf", b"tRNS", b"PLTE", b"iCCP", b"zTXt", b"acTL", b"fcTL", b"fdAT", b"tEXt")
        )
        body = rng.choice(
            (
                b"",
                b"\0" * 30,
                b"MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0",
                zlib.compress(b"\0" * 200_000),
            )
        )
        chunks.insert(
            max(1, place), [name, b"icc\0\0" + body if name in (b"iCCP", b"zTXt") else body]
        )
    else:
        del chunks[place]
    out = [data[:8]]
    for name, body in chunks:
        out.append(
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )
    return b"".join(out)[:LARGEST]


def _jpeg(rng: Random, data: bytes) -> bytes:
    """Change one segment before the scan, keeping its length right."""
    segments, offset = [], 2
    while offset + 4 <= len(data) and data[offset] == 0xFF and data[offset + 1] != 0xDA:
        (length,) = struct.unpack_from(">H", data, offset + 2)
        segments.append((data[offset + 1], data[offset + 4 : offset + 2 + length]))
        offset += 2 + length
    if not segments:
        return plain(rng, data, (data,))
    place = rng.randrange(len(segments))
    marker, body = segments[place]
    kind = rng.random()
    if kind < 0.5 and 0xC0 <= marker <= 0xCF and len(body) >= 5:
        sides = [rng.choice((0, 1, 8, 300, 9000, 65535)) for _ in range(2)]
        segments[place] = marker, body[:1] + struct.pack(">HH", *sides) + body[5:]
    elif kind < 0.8:
        segments[place] = marker, plain(rng, body, (data,))[:65000]
    elif kind < 0.9:
        segments.insert(place, (rng.choice((0xE1, 0xE2, 0xFE, 0xC2, 0xDB, 0xC4)), body))
    else:
        del segments[place]
    head = b"".join(b"\xff%c%b%b" % (m, struct.pack(">H", len(b) + 2), b) for m, b in segments)
    return (data[:2] + head + data[offset:])[:LARGEST]


def matlab(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Change a MATLAB file, inside its compressed elements too; now and then compress a bomb."""
    (kind, length) = struct.unpack_from("<II", data, 128) if len(data) > 136 else (0, 0)
    if rng.random() < 0.15 or data[:4] == b"\0\0\0\0":
        return plain(rng, data, others)
    inner = data[128:]
    if kind == 15:
        inner = zlib.decompress(data[136 : 136 + length])
    changed = plain(rng, inner, [other[128:] for other in others])
    chance = rng.random()
    if chance < 0.003:  # the array's own length field, and as many bytes as that
        changed = bytearray(inner)
        (numbers,) = struct.unpack_from("<I", changed, 60) if len(changed) > 64 else (0,)
        size = rng.choice((2**20, 2**24, 2**26, 2**31, 2**32 - 8))
        struct.pack_into("<I", changed, 4, min(size + numbers + 64, 2**32 - 1))
        for place in range(40, min(len(changed) - 4, 120), 4):
            if struct.unpack_from("<I", changed, place)[0] > 300:
                struct.pack_into("<I", changed, place, size)
                break
        changed = bytes(changed) + b"\0" * min(size, 2 ** rng.choice((16, 20, 23, 26)))
    if kind == 15 or chance < 0.3:
        packed = zlib.compress(changed, 1)
        return data[:128] + struct.pack("<II", 15, len(packed)) + packed
    return (data[:128] + changed)[:LARGEST]
