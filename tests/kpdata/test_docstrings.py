import importlib
import re

from kpdata import synth


def test_the_modules_that_the_simulation_speaks_of_exist():
    named = re.findall(r":mod:`~([\w.]+)`", synth.__doc__)
    assert named
    for name in named:
        importlib.import_module(name)
