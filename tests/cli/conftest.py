"""What the command line's tests share: the command itself, and what a refusal must look like."""

import contextlib
import io
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kpdata.cli.main import main


@dataclass(frozen=True)
class Result:
    """What a command said, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Kpdata = Callable[..., Result]
Refuses = Callable[..., str]


@pytest.fixture
def kpdata(monkeypatch: pytest.MonkeyPatch) -> Kpdata:
    """``kpdata("convert", "coco", path, ...)`` runs the console script's function."""

    def run(*arguments: object) -> Result:
        out, err = io.StringIO(), io.StringIO()
        code: int | str | None = 0
        monkeypatch.setattr(sys, "argv", ["kpdata", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "200")
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main()
            except SystemExit as end:
                code = end.code
        assert isinstance(code, int | None)
        return Result(code or 0, out.getvalue(), err.getvalue())

    return run


@pytest.fixture
def refuses(kpdata: Kpdata, tmp_path: Path) -> Refuses:
    """``refuses("convert", ..., says=[...])``: one message, no traceback, and no dataset.

    ``--out`` is added, and must not even exist afterwards unless ``begun`` is true.
    """

    def check(*arguments: object, says: list[str], begun: bool = False) -> str:
        out = tmp_path / "refused"
        result = kpdata(*arguments, "--out", out)
        assert result.code != 0
        assert result.out == ""
        assert "Traceback" not in result.err
        for text in says:
            assert text in result.err
        assert not (out / "kpdata.json").exists()
        assert out.exists() <= begun
        assert not list(tmp_path.glob(".refused*"))
        return result.err

    return check
