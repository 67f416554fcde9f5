"""Names of files that any disk takes."""

import re
from hashlib import blake2b
from pathlib import PurePosixPath

_UNSAFE = re.compile(r"[:\x00-\x1f\x7f-\x9f\udc80-\udcff]")
_LONGEST_PART = 235
"""Bytes of a file's name, which with a suffix and a number may have 255."""


def safe_name(name: str) -> str:
    """``name`` without what some disk, reader or encoding refuses; most names stay as they are.

    Empty parts fall away. ``:``, control characters and bytes that are not UTF-8 become ``%`` and
    two digits each. A part that leaves no room for a suffix and a number loses its end, and gets
    eight digits of its hash. Two names may become the same one: their writer numbers them.

    >>> safe_name("./a//b.png"), safe_name("a:b.png")
    ('a/b.png', 'a%3Ab.png')
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return "/".join(_short(_UNSAFE.sub(_percent, part)) for part in parts) or "image"


def _percent(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in found[0].encode("utf-8", "surrogateescape"))


def _short(part: str) -> str:
    encoded = part.encode()
    if len(encoded) <= _LONGEST_PART:
        return part
    suffix = PurePosixPath(part).suffix
    end = f"~{blake2b(encoded, digest_size=4).hexdigest()}{suffix if len(suffix) < 8 else ''}"
    return encoded[: _LONGEST_PART - len(end.encode())].decode(errors="ignore") + end
