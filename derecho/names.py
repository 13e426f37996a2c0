"""What may be an id or a name."""

from __future__ import annotations

import unicodedata
from typing import Any, Final

NAME_BYTES_MAX: Final = 1000


def check_name(value: Any, what: str) -> str:
    """Return a workflow id, a name or a request id if it can be one.

    Args:
        what: the name of the argument, for the error.

    Raises:
        TypeError: it is no str.
        ValueError: it is empty, longer than 1000 bytes in UTF-8, or holds NUL, control characters or surrogates.
    """
    if not isinstance(value, str):
        raise TypeError(f"{what} must be a str, not {type(value).__name__}")
    if not value:
        raise ValueError(f"{what} must not be empty")
    if value.isascii() and value.isprintable() and len(value) <= NAME_BYTES_MAX:
        return value
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise ValueError(
            f"{what} holds a lone surrogate, which no database can keep: {value!a:.80}"
        ) from None
    if size > NAME_BYTES_MAX:
        raise ValueError(f"{what} must be at most {NAME_BYTES_MAX} bytes in UTF-8, got {size}")
    for character in value:
        if unicodedata.category(character) == "Cc":
            raise ValueError(f"{what} must not hold control characters, got {value!a:.80}")
    return value
