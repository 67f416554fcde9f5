"""Annotation formats: what reads each, recognises it and, where it can be written, writes it."""

from kpdata.formats.base import Format, Option, Source
from kpdata.formats.registry import FORMATS, find, lookup, read, recognise, register

__all__ = [
    "FORMATS",
    "Format",
    "Option",
    "Source",
    "find",
    "lookup",
    "read",
    "recognise",
    "register",
]
