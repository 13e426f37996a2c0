"""Where workflow code stands: "file:line" of the first frame that is not ours."""

from __future__ import annotations

import sys
from pathlib import Path
from types import CodeType, FrameType
from typing import Final

_PACKAGE: Final = str(Path(__file__).resolve().parent.parent)
# The file name that is shown for a code object; empty for our own. Kept as long as the functions themselves are.
_shown: Final[dict[CodeType, str]] = {}


def site_of(frame: FrameType | None) -> str:
    """Return "file:line" of the innermost frame of user code, or an empty string."""
    while frame is not None:
        code = frame.f_code
        name = _shown.get(code)
        if name is None:
            name = _shown[code] = _name_of(code)
        if name:
            return f"{name}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


def current_site() -> str:
    """Return where the calling workflow code stands."""
    return site_of(sys._getframe(1))


def _name_of(code: CodeType) -> str:
    if code.co_filename.startswith(_PACKAGE):
        return ""
    path = Path(code.co_filename)
    return f"{path.parent.name}/{path.name}" if path.name.startswith("__") else path.name
