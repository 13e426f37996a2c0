"""Prove a built wheel as a stranger would use it: python wheels/prove.py dist

Makes an environment outside of the checkout, installs the wheel into it, runs `verify.py` there, then
type-checks and runs the project in `consumer/`, which knows derecho only as an installed package.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

WHEELS = Path(__file__).resolve().parent


def newest_wheel(folder: Path) -> Path:
    """Return the wheel in `folder` that was built last; exit if there is none."""
    found = sorted(folder.glob("derecho-*.whl"), key=lambda path: path.stat().st_mtime)
    if not found:
        sys.exit(f"prove: no derecho-*.whl in {folder}; make one: make wheel")
    return found[-1]


def run(*command: str | Path, cwd: Path) -> None:
    """Run a command away from the checkout; stop at the first failure."""
    # PYTHONPATH could put the checkout back in front of the wheel.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([str(word) for word in command], cwd=cwd, env=environment)
    if done.returncode != 0:
        sys.exit(f"prove: {' '.join(str(word) for word in command)}: exit {done.returncode}")


def main() -> None:
    wheel = newest_wheel(Path(sys.argv[1] if len(sys.argv) > 1 else "dist").resolve())
    with tempfile.TemporaryDirectory(prefix="derecho-prove-") as name:
        folder = Path(name)
        venv.create(folder / "env", with_pip=True)
        python = folder / "env" / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
        pip = (python, "-m", "pip", "-qq", "--disable-pip-version-check", "install")
        print(f"prove: installing {wheel.name}", flush=True)
        run(*pip, wheel, cwd=folder)
        run(python, WHEELS / "verify.py", cwd=folder)
        shutil.copytree(WHEELS / "consumer", folder / "consumer")
        run(*pip, "mypy>=1.18", cwd=folder)
        run(python, "-m", "mypy", "--strict", "shop.py", cwd=folder / "consumer")
        run(python, "-W", "error", "shop.py", cwd=folder / "consumer")
    print("prove: the wheel stands on its own")


if __name__ == "__main__":
    main()
