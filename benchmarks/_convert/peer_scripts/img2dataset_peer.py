"""img2dataset fetches images by file URLs, resizes them and writes TFRecords."""

import contextlib
import json
import os
import sys
import time
from pathlib import Path

from img2dataset import download

SIZE, QUALITY, THREADS = 256, 95, 8


def main(annotations: Path, images: Path, folder: Path, processes: int) -> None:
    """Resize with borders to a square; print what it took."""
    started = time.perf_counter()
    entries = json.loads(annotations.read_bytes())["images"]
    urls = folder / "urls.txt"
    urls.write_text("\n".join((images / entry["file_name"]).as_uri() for entry in entries))
    began = time.perf_counter()
    with contextlib.redirect_stdout(sys.stderr):
        download(
            url_list=str(urls),
            output_folder=str(folder / "out"),
            output_format="tfrecord",
            image_size=SIZE,
            resize_mode="border",
            encode_quality=QUALITY,
            processes_count=processes,
            thread_count=THREADS,
            number_sample_per_shard=-(-len(entries) // processes),
            extract_exif=False,
            compute_hash="sha256",
        )
    os.sync()
    ended = time.perf_counter()
    told = [json.loads(path.read_bytes()) for path in (folder / "out").glob("*_stats.json")]
    items = sum(shard["successes"] for shard in told)
    print(json.dumps({"items": items, "job": ended - started, "work": ended - began}))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]), int(sys.argv[4]))
