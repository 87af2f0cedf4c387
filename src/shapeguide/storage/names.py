"""Names that may become names of files: what they must not hold, on any system.

Structures and cases are named by foreign files, and files and folders are named after them. A name
is checked once, where a `Structure` or a `Case` is made, so that nothing further in ever has to ask
whether a name leads out of a folder.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

LONGEST_NAME_BYTES = 100
"""Two names, the suffix of a scan and the prefix of a temporary file fit in 255 bytes."""
FORBIDDEN = '/\\:*?"<>|'
"""What separates folders, and what Windows takes in no name."""
DEVICES = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])\s*(\..*)?", re.I)
"""Names of devices on Windows, whatever suffix follows."""
UNSEEN = ("Cc", "Cs", "Zl", "Zp")
"""Unicode categories of control characters, halves of characters, and line separators."""
TURNS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""Characters that turn the direction of the text, so that a name reads unlike it is."""


def name_fault(name: object) -> str | None:
    """Why a name cannot be that of a file on every system, or None if it can.

    Letters of every script, digits, spaces between other characters and most signs are fine.
    """
    if not isinstance(name, str):
        return f"it is {type(name).__name__}, not a text"
    if not name:
        return "it is empty"
    unseen = [one for one in name if unicodedata.category(one) in UNSEEN or one in TURNS]
    if unseen:
        return f"it holds the character U+{ord(unseen[0]):04X}, which is not seen"
    forbidden = [one for one in FORBIDDEN if one in name]
    if forbidden:
        return f"it holds {' '.join(forbidden)}"
    if name.startswith((".", " ")) or name.endswith((".", " ")):
        return "it begins or ends with a dot or a space"
    if DEVICES.fullmatch(name):
        return "Windows takes it for a device"
    size = len(name.encode())
    if size > LONGEST_NAME_BYTES:
        return f"it takes {size} bytes, and {LONGEST_NAME_BYTES} are room enough"
    return None


def shown(name: object) -> str:
    """A name as an error message may show it: quoted, what is not seen spelt out, cut if long."""
    text = ascii(name) if name_fault(name) else repr(name)
    return text if len(text) <= 60 else f"{text[:57]}..."


def few(names: Sequence[str]) -> str:
    """The first five of some names for an error message, and how many more there are."""
    first = [name if name.isprintable() and len(name) <= 60 else shown(name) for name in names[:5]]
    return ", ".join(first) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def shown_path(path: object) -> str:
    """A path as an error message may show it: what is not seen spelt out, cut if long."""
    text = str(path)
    if not text.isprintable():
        text = ascii(text)
    return text if len(text) <= 300 else f"{text[:297]}..."
