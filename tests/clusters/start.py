"""Start a cluster on this machine, to try ``kpdata convert`` on; Ctrl-C stops it.

python tests/clusters/start.py dask|flink|spark
"""

import shlex
import signal
import sys
import tempfile
from pathlib import Path

from engines import ENGINES


def main(engine: str) -> None:
    """Start ``engine``, say what to type, and wait."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as folder, ENGINES[engine](Path(folder)) as cluster:
        print(f"--runner {cluster.runner} -- {shlex.join(cluster.options)}", flush=True)
        print(f"logs in {folder}; Ctrl-C stops all of it", file=sys.stderr, flush=True)
        try:
            signal.pause()
        except KeyboardInterrupt:
            print("stopping", file=sys.stderr)


if __name__ == "__main__":
    if sys.argv[1:] not in ([name] for name in ENGINES):
        sys.exit(__doc__)
    main(sys.argv[1])
