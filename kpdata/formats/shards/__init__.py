"""Our own shards, read as annotations and written by the conversion."""

from kpdata.formats.base import Format, imported

FORMAT = Format(
    name="shards",
    summary="a shard folder that kpdata wrote: TFRecord files and kpdata.json",
    coordinates="normalised x/W, y/H from the image's corner",
    visibility="v 0/1/2",
    read=imported("kpdata.formats.shards.read:read"),
    detect=lambda seen: "its kpdata.json" if "kpdata.json" in seen.names else None,
    aliases=("kpdata", "tfrecord", "tfrecords"),
    is_target=True,
    has_splits=True,
    copied=frozenset({".json", ".tfrecord"}),
)
