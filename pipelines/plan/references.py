"""A temporary SQLite table of references, which groups and orders them in bounded memory."""

import hashlib
import sqlite3
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple, Self

from kpdata.core.errors import FormatError, ImageError
from kpdata.core.groups import Groups
from kpdata.core.sample import ImageRef, Rejected, Sample, pack, unpack_sample
from kpdata.core.splits import TRAIN, Splits, display_order, position, stable_hash
from kpdata.pipelines.request import Request
from kpdata.shards.fetch import fetch, fetch_tail
from kpdata.storage.image_files import Stamp
from kpdata.storage.parallel import in_parallel
from kpdata.storage.scratch import scratch_database

_TABLES = """
    CREATE TABLE refs (
        id INTEGER PRIMARY KEY, key TEXT, rank INTEGER, grp TEXT, official TEXT,
        size INTEGER, mtime INTEGER, instances INTEGER, regrouped INTEGER);
    CREATE TABLE packed (id INTEGER PRIMARY KEY, sample BLOB);
    CREATE TABLE joined (grp TEXT PRIMARY KEY, parent TEXT) WITHOUT ROWID;
    CREATE TABLE rejected (key TEXT, reason TEXT, detail TEXT);
    CREATE TABLE tails (id INTEGER PRIMARY KEY, digest BLOB);
    CREATE TABLE wholes (id INTEGER PRIMARY KEY, digest BLOB);
    CREATE TABLE assigned (split TEXT, rank INTEGER, key TEXT, id INTEGER);
"""
_SAME_SIZE = """
    SELECT id, size FROM refs WHERE size IN
    (SELECT size FROM refs GROUP BY size HAVING COUNT(*) > 1) ORDER BY id
"""
_SAME_TAIL = """
    SELECT id, size FROM tails JOIN refs USING (id) WHERE digest IN
    (SELECT digest FROM tails GROUP BY digest HAVING COUNT(*) > 1) ORDER BY id
"""
_SHORTEN = """
    UPDATE joined SET parent =
    (SELECT above.parent FROM joined AS above WHERE above.grp = joined.parent)
    WHERE parent IN (SELECT grp FROM joined)
"""
"""Halves each way up at least: once it changes nothing, every parent stands for its whole set."""

_REGROUP = """
    UPDATE refs SET regrouped = TRUE, grp = (SELECT parent FROM joined WHERE grp = refs.grp)
    WHERE grp IN (SELECT grp FROM joined)
"""
STAMP = struct.Struct("<qq")
"""How an image's stamp is packed in front of a sample.

A changed image so changes the plan, and the writer can compare the image with its stamp.
"""

_BATCH = 1000
_KEPT_FIRST = ("test", "val", TRAIN)
"""Whose image stays when official splits share one: the split that measures before the others."""


class SplitTotals(NamedTuple):
    """References in a split, labelled instances in them, and their images' bytes."""

    samples: int
    instances: int
    bytes: int


class References:
    """Collects references, then hands them out split by split in hash order."""

    def __init__(self) -> None:
        self._scratch = scratch_database(_TABLES)
        self._unwritten: list[tuple[tuple[object, ...], tuple[int, bytes]]] = []
        self._added = self._digest_sum = 0

    def __enter__(self) -> Self:
        self._db = self._scratch.__enter__()
        self._groups = Groups(_Parents(self._db))
        return self

    def __exit__(self, *error: Any) -> None:
        self._scratch.__exit__(*error)

    def join(self, first: str, second: str) -> bool:
        """Put two groups into one; False if they were."""
        return self._groups.join(first, second)

    def add(self, sample: Sample, stamp: Stamp) -> None:
        """Keep a reference to an image with this stamp."""
        self._added += 1
        anywhere = replace(sample, image=replace(sample.image, uri=""))
        digest = hashlib.blake2b(b"%d " % stamp.size + pack(anywhere), digest_size=32).digest()
        self._digest_sum += int.from_bytes(digest, "big")  # a sum: no order matters
        row = (
            self._added,
            sample.key,
            stable_hash(sample.key) >> 1,  # SQLite's integers are signed
            sample.split_group,
            sample.split,
            *stamp,
            sum(1 for instance in sample.instances if instance.num_labelled),
        )
        self._unwritten.append((row, (self._added, pack(sample))))
        if len(self._unwritten) >= _BATCH:
            self._flush()

    def _flush(self) -> None:
        rows, packed = zip(*self._unwritten, strict=True) if self._unwritten else ((), ())
        self._db.executemany("INSERT INTO refs VALUES (?, ?, ?, ?, ?, ?, ?, ?, FALSE)", rows)
        self._db.executemany("INSERT INTO packed VALUES (?, ?)", packed)
        self._unwritten.clear()

    def reject(self, rejected: Rejected) -> None:
        """Keep a refused sample's reason."""
        self._db.execute("INSERT INTO rejected VALUES (?, ?, ?)", rejected)

    def join_identical_images(self, request: Request) -> int:
        """Join the groups of images with the same bytes; the number of images joined to another.

        Only images of equal size are looked at, and only those with an equal tail in full.
        """
        self._flush()
        self._digest("tails", _SAME_SIZE, fetch_tail, request)
        self._digest("wholes", _SAME_TAIL, fetch, request)
        rows = self._db.execute(
            "SELECT digest, grp FROM wholes JOIN refs USING (id) ORDER BY digest, grp"
        )
        joined = 0
        for (one, group), (next_one, next_group) in pairwise(rows):
            if one == next_one:
                self._groups.join(group, next_group)
                joined += 1
        return joined

    def _digest(
        self, table: str, alike: str, read: Callable[[ImageRef, int], bytes], request: Request
    ) -> None:
        """Fill a table with digests of the sizes and bytes of the images that are alike so far."""

        def digest(item: tuple[int, int, ImageRef]) -> tuple[int, bytes] | None:
            reference, size, image = item
            data = _bytes_or_none(read, image, request)
            if data is None:
                return None
            return reference, hashlib.sha256(b"%d " % size + data).digest()

        images = ((i, size, self._image(i)) for i, size in self._db.execute(alike))
        found = (in_parallel if request.on_store else map)(digest, images)
        self._db.executemany(f"INSERT INTO {table} VALUES (?, ?)", filter(None, found))

    def _image(self, reference: int) -> ImageRef:
        row = self._db.execute("SELECT sample FROM packed WHERE id = ?", (reference,)).fetchone()
        return unpack_sample(row[0]).image

    def images(self) -> Iterator[tuple[str, ImageRef]]:
        """The group and the image of every reference, in the order in which they came."""
        self._flush()
        rows = self._db.execute("SELECT grp, sample FROM refs JOIN packed USING (id) ORDER BY id")
        return ((group, unpack_sample(sample).image) for group, sample in rows)

    def _regroup(self) -> None:
        """Write the joined groups' names into the references."""
        while self._db.execute(_SHORTEN).rowcount:
            pass
        self._db.execute(_REGROUP)

    def assign_splits(self, splits: Splits) -> None:
        """Give every reference its split, and refuse what would tear a group between official ones.

        Raises:
            FormatError: two references have the same key.
        """
        self._flush()
        self._check_keys()
        self._regroup()
        if splits.official:
            self._refuse_torn_groups()
        self._db.create_function("split_of", 2, splits.assign, deterministic=True)
        self._db.execute(
            "INSERT INTO assigned SELECT split_of(grp, official), rank, key, id FROM refs"
        )
        self._fill_empty_splits(splits)
        self._db.execute(
            "INSERT INTO rejected SELECT key, 'no official split', "
            "'the source gives ' || key || ' no split: choose percentages, `split` 80/10/10 say' "
            "FROM assigned WHERE split IS NULL ORDER BY id"
        )

    def _fill_empty_splits(self, splits: Splits) -> None:
        """Give each split that has no group the one that its share of [0, 1) nearly reached.

        A split keeps its last group, so some stay empty where there are fewer groups than splits.
        """
        filled = {name for (name,) in self._db.execute("SELECT DISTINCT split FROM assigned")}
        if filled >= splits.shares.keys():
            return
        rows = self._db.execute("SELECT DISTINCT grp, split FROM refs JOIN assigned USING (id)")
        split_of: dict[str, str] = dict(rows)
        for empty, (low, high) in splits.ranges.items():
            if empty in split_of.values():
                continue
            sizes = Counter(split_of.values())
            nearest = min(
                (
                    (max(low - point, point - high), group)
                    for group, split in split_of.items()
                    if sizes[split] > 1
                    for point in (position(group, splits.seed),)
                ),
                default=None,
            )
            if nearest is None:
                return
            _, group = nearest
            split_of[group] = empty
            self._db.execute(
                "UPDATE assigned SET split = ? WHERE id IN (SELECT id FROM refs WHERE grp = ?)",
                (empty, group),
            )

    def _check_keys(self) -> None:
        twice = self._db.execute(
            "SELECT key FROM refs GROUP BY key HAVING COUNT(*) > 1 LIMIT 1"
        ).fetchone()
        if twice:
            raise FormatError(f"two samples have the key {twice[0]!r}: keys must be unique")

    def _refuse_torn_groups(self) -> None:
        groups = self._db.execute(
            "SELECT grp, GROUP_CONCAT(DISTINCT official) FROM refs "
            "GROUP BY grp HAVING COUNT(DISTINCT official) > 1"
        ).fetchall()
        for group, officials in groups:
            kept = min(officials.split(","), key=_kept_first)
            where = "FROM refs WHERE grp = ? AND official != ?"
            self._db.execute(
                "INSERT INTO rejected SELECT key, 'leaks into another split', "
                f"key || ' of the official ' || official || ' split is also in ' || ? {where}",
                (kept, group, kept),
            )
            self._db.execute(f"DELETE {where}", (group, kept))

    def official_splits(self) -> list[str]:
        """The names of the source's own splits, train first."""
        rows = self._db.execute("SELECT DISTINCT official FROM refs WHERE official IS NOT NULL")
        return sorted((name for (name,) in rows), key=display_order)

    @property
    def fingerprint(self) -> str:
        """A hex hash of all references added; folders are left out."""
        return f"{self._digest_sum % 2**256:064x}"

    @property
    def samples(self) -> int:
        """References added."""
        return self._added

    def count_groups(self) -> int:
        """Groups among the references."""
        return int(self._db.execute("SELECT COUNT(DISTINCT grp) FROM refs").fetchone()[0])

    def split_totals(self) -> dict[str, SplitTotals]:
        """Split → what is in it, train first."""
        rows = self._db.execute(
            "SELECT split, COUNT(*), SUM(instances), SUM(size) FROM assigned JOIN refs USING (id) "
            "WHERE split IS NOT NULL GROUP BY split"
        )
        totals = {split: SplitTotals(*numbers) for split, *numbers in rows}
        return dict(sorted(totals.items(), key=lambda item: display_order(item[0])))

    def packed_samples(self, split: str) -> Iterator[bytes]:
        """The split's packed samples behind their images' stamps, in their keys' hash order."""
        rows = self._db.execute(
            "SELECT size, mtime, regrouped, grp, sample "
            "FROM assigned JOIN refs USING (id) JOIN packed USING (id) "
            "WHERE split = ? ORDER BY assigned.rank, assigned.key",
            (split,),
        )
        for size, mtime, regrouped, group, sample in rows:
            yield STAMP.pack(size, mtime) + (_in_group(group, sample) if regrouped else sample)

    def rejected(self) -> Iterator[Rejected]:
        """Refused samples, by key."""
        rows = self._db.execute("SELECT key, reason, detail FROM rejected ORDER BY key, detail")
        return (Rejected(*row) for row in rows)


class _Parents:
    """The parents of joined groups, kept in a table."""

    def __init__(self, db: sqlite3.Connection):
        self._db = db

    def get(self, group: str, default: str, /) -> str:
        row = self._db.execute("SELECT parent FROM joined WHERE grp = ?", (group,)).fetchone()
        return row[0] if row else default

    def __setitem__(self, group: str, parent: str, /) -> None:
        self._db.execute("REPLACE INTO joined VALUES (?, ?)", (group, parent))


def _in_group(group: str, sample: bytes) -> bytes:
    return pack(replace(unpack_sample(sample), group=group))


def _bytes_or_none(
    read: Callable[[ImageRef, int], bytes], image: ImageRef, request: Request
) -> bytes | None:
    try:
        return read(image, request.max_bytes)
    except ImageError:  # the writer meets it again, and quarantines it there
        return None


def _kept_first(split: str) -> int:
    return _KEPT_FIRST.index(split) if split in _KEPT_FIRST else len(_KEPT_FIRST)
