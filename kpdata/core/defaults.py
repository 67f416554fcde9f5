"""Defaults of a conversion, shared by ``kpdata.convert``, its ``Request`` and the command line.

They stand here, and not in ``Request``, because :mod:`kpdata.door` may import ``kpdata.pipelines``
only when a conversion starts. An option that is not listed is off, or 0, unless it is given.
"""

from typing import Final

MAX_PIXELS: Final = 100_000_000
"""Of an image; decoding takes up to 8 bytes a pixel."""

JPEG_QUALITY: Final = 95
"""Of crops, and of images that must be encoded anew."""

MAX_QUARANTINE: Final = 1.0
"""Percentage of the samples that may be refused."""

SHARD_SIZE: Final = 128_000_000
"""Bytes, roughly."""
