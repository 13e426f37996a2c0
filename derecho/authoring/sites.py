"""Where workflow code stands: "file:line" of the first frame that is not ours."""

from __future__ import annotations

import sys
from pathlib import Path
from types import CodeType, FrameType
from typing import Final

_PACKAGE: Final = str(Path(__file__).resolve().parent.parent)
# Whether a code object is derecho's own; code objects live as long as their functions, so this stays small.
_is_ours: Final[dict[CodeType, bool]] = {}


def site_of(frame: FrameType | None) -> str:
    """Return "file:line" of the innermost frame of user code, or an empty string."""
    while frame is not None:
        code = frame.f_code
        ours = _is_ours.get(code)
        if ours is None:
            ours = _is_ours[code] = code.co_filename.startswith(_PACKAGE)
        if not ours:
            path = Path(code.co_filename)
            name = f"{path.parent.name}/{path.name}" if path.name.startswith("__") else path.name
            return f"{name}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


def current_site() -> str:
    """Return where the calling workflow code stands."""
    return site_of(sys._getframe(1))
