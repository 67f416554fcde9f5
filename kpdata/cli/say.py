"""Text that may come out of a file, as a terminal can be trusted with it."""

_CONTROLS = {
    code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"
}


def printable(text: str) -> str:
    r"""The text with control characters, which can rewrite a screen, as ``\x1b``.

    Lines and tabs stay.
    """
    return text.translate(_CONTROLS)
