"""What a user means by a path that was typed, pasted or dropped."""
import os
import re
from urllib.parse import unquote

from .text import stripped

DOUBLE, SINGLE = "\"“”„‟«»＂", "'‘’‚‛‹›`"
FILE_URL = re.compile(r"file:(//(localhost)?)?(?=/)", re.IGNORECASE)
ABSOLUTE = re.compile(r"/|\\\\|[a-z]:", re.IGNORECASE)
WINDOWS = os.name == "nt"


def path(text: str) -> str:
    """The path without what came along on the way: quotation marks, spaces and invisible marks around it (Windows'
    properties dialog copies U+202A), ``file://`` with its %20, ``~`` for the home folder, and, in a relative path,
    the backslashes of another system. A name that exists as it is written should be tried before.
    """
    text = _bare(text)
    if url := FILE_URL.match(text):
        text = unquote(text[url.end() :], errors="surrogateescape")  # names need not be UTF-8
        text = re.sub("^/+(?=[A-Za-z]:)", "", text)  # a drive
    if not WINDOWS and not ABSOLUTE.match(text):
        text = text.replace("\\", "/")
    try:
        return os.path.expanduser(text)
    except ValueError:  # what no user is called
        return text


def _bare(text: str) -> str:
    """The text without anything invisible and without quotation marks around it; single ones, which end names such as
    ``artists'``, only in pairs."""
    before = None
    while text != before:
        before, text = text, stripped(text).strip(DOUBLE)
        if len(text) > 1 and text[0] in SINGLE and text[-1] in SINGLE:
            text = text[1:-1]
    return text
