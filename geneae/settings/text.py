"""Names from arbitrary files as text that is safe to show, and words as a shell reads them."""

import re
import shlex
import unicodedata
from collections.abc import Iterable

HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode categories that are escaped: control characters, marks of direction and joining, halves of a surrogate pair
(which stand for the bytes of a file name that is not UTF-8), and separators of lines and paragraphs."""


def escaped(text: object, keep: str = "") -> str:
    r"""Text on one line without characters that a terminal or a browser would obey: `\x1b`, `\u202e`, `\udcff`.

    Backslashes stay as they are, so that text escaped twice is escaped once.

    Parameters
    ----------
    text
        Anything; `str` is taken of it.
    keep
        Characters to leave as they are, such as a line break.
    """
    text = str(text)
    if text.isprintable():
        return text
    return "".join(sign if sign in keep or unicodedata.category(sign) not in HIDDEN else _code(sign) for sign in text)


def counted(number: int, one: str, many: str = "") -> str:
    """`1 profile`, `1,234 profiles`; with two texts `1 profile is`, `1,234 profiles are`."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def _code(sign: str) -> str:
    return sign.encode("unicode_escape").decode("ascii")


def shell_line(words: Iterable[str]) -> str:
    r"""Words on one printable line that bash and zsh read as these words; `$'\xff'` for bytes that cannot be shown."""
    return " ".join(map(_shell_word, words))


def _shell_word(word: str) -> str:
    if escaped(word) == word:
        return shlex.quote(word)
    signs = [f"\\{sign}" if sign in "\\'" else sign if escaped(sign) == sign else _bytes(sign) for sign in word]
    return f"$'{''.join(signs)}'"


def _bytes(sign: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in sign.encode("utf-8", "surrogateescape"))


def sentences_of(text: str) -> list[str]:
    """The sentences of a text, each of which begins with a capital letter."""
    return re.split(r"(?<=[.]) (?=[A-Z])", text)
