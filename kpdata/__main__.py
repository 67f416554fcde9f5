"""``python -m kpdata``: the same as ``kpdata``, for whichever Python is at hand."""

from kpdata.cli.main import main

if __name__ == "__main__":
    main()
