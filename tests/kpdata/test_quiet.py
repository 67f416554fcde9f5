"""Silence that ends when it should."""

import logging
import os
import warnings

import pytest

from kpdata.core.quiet import without_native_stderr, without_warnings


def test_no_library_warns_and_afterwards_all_is_as_before(caplog):
    logging.disable(logging.INFO)
    try:
        with without_warnings():
            logging.getLogger("x").warning("unheard")
            logging.getLogger("x").error("heard")
            warnings.warn("unheard", stacklevel=1)
        assert logging.root.manager.disable == logging.INFO
    finally:
        logging.disable(logging.NOTSET)
    assert [record.message for record in caplog.records] == ["heard"]
    with pytest.warns(UserWarning, match="heard"):
        warnings.warn("heard", stacklevel=1)


def test_what_c_writes_to_standard_error_is_lost_and_later_words_are_not(capfd):
    with without_native_stderr():
        os.write(2, b"unheard")
    os.write(2, b"heard")
    assert capfd.readouterr().err == "heard"
