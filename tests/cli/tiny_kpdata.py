"""``kpdata`` whose blazepose ``lite`` compiles in seconds; for tests that need a process to end."""

import signal

from kpdata.cli.main import main
from kpdata.train.run.backend import prepare_backend

if __name__ == "__main__":
    # tests that a shell runs in the background hand down a Ctrl-C that is ignored
    signal.signal(signal.SIGINT, signal.default_int_handler)
    prepare_backend()
    from kpdata.train.models.blazepose import SIZES, Size

    SIZES["lite"] = Size((4, 4, 6, 6, 8), (1, 1, 1, 1, 1), (1, 1))
    main()
