"""Where workflow code stands: "file:line" of the first frame that is not ours."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType
from typing import Final

_PACKAGE: Final = str(Path(__file__).resolve().parent.parent)
# What is shown of a file name; empty for our own files. Not by code object: those that look alike are equal.
_shown: Final[dict[str, str]] = {}


def site_of(frame: FrameType | None) -> str:
    """Return "file:line" of the innermost frame of user code, or an empty string."""
    while frame is not None:
        file_name = frame.f_code.co_filename
        name = _shown.get(file_name)
        if name is None:
            name = _shown[file_name] = _name_of(file_name)
        if name:
            return f"{name}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


def current_site() -> str:
    """Return where the calling workflow code stands."""
    return site_of(sys._getframe(1))


def _name_of(file_name: str) -> str:
    if file_name.startswith(_PACKAGE):
        return ""
    path = Path(file_name)
    return f"{path.parent.name}/{path.name}" if path.name.startswith("__") else path.name
