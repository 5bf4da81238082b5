"""Texts as people read them."""
import unicodedata

# Characters that show nothing although Unicode counts them as letters, marks or symbols.
BLANK = "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0"


def counted(number: int, noun: str) -> str:
    """`1 sample`, `2 samples`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def printable(text: str) -> str:
    """The text, with what is no character written out: the name of a file need not be UTF-8."""
    return text.encode(errors="backslashreplace").decode()


def stripped(text: str) -> str:
    """The text without anything invisible around it: blanks, control characters, zero-width characters."""
    first, last = 0, len(text)
    while first < last and _invisible(text[first]):
        first += 1
    while first < last and _invisible(text[last - 1]):
        last -= 1
    return text[first:last]


def _invisible(character: str) -> bool:
    return character in BLANK or unicodedata.category(character) in ("Cc", "Cf", "Zs", "Zl", "Zp")
