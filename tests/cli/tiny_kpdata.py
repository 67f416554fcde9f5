"""``kpdata`` whose blazepose ``lite`` compiles in seconds; for tests that need a process to end."""

from kpdata.cli.main import main
from kpdata.train.run.backend import prepare_backend

if __name__ == "__main__":
    prepare_backend()
    from kpdata.train.models.blazepose import SIZES, Size

    SIZES["lite"] = Size((4, 4, 6, 6, 8), (1, 1, 1, 1, 1), (1, 1))
    main()
