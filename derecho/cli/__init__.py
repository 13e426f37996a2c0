"""The command `derecho`: one module per verb, imported only when it is asked for.

A verb's module has `configure(parser)`, which adds its arguments, and `run(options)`, which returns the exit status:
0 done, 1 it went wrong, 2 the command line is at fault. Ctrl-C ends with 130, as shells expect.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Final

import derecho

# Verb -> its module, and what it does in one line.
VERBS: Final = {
    "demo": ("derecho.cli.demo", "index a folder durably, and kill the worker on the way"),
}

USAGE_ERROR: Final = 2
_INTERRUPTED: Final = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        options = _read(words)
        status: int = options.run(options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has left (`derecho demo | head`). The interpreter's own last flush must not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except SystemExit as left:  # argparse's way out.
        return left.code if isinstance(left.code, int) else 1
    return status


def _read(words: Sequence[str]) -> argparse.Namespace:
    asked = next((word for word in words if not word.startswith("-")), None)
    if asked is not None and asked not in VERBS:
        _refuse(asked)
    parser = argparse.ArgumentParser(
        prog="derecho",
        description="Durable workflow execution for Python, through event sourcing.",
        epilog="derecho COMMAND --help tells more about a command.",
    )
    parser.add_argument("--version", action="version", version=f"derecho {derecho.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for verb, (module_name, summary) in VERBS.items():
        command = commands.add_parser(verb, help=summary, description=f"{summary.capitalize()}.")
        if verb == asked:
            module = importlib.import_module(module_name)
            module.configure(command)
            command.set_defaults(run=module.run)
    options = parser.parse_args(words)
    if asked is None:
        parser.print_help(sys.stderr)
        sys.exit(USAGE_ERROR)
    return options


def _refuse(asked: str) -> None:
    near = difflib.get_close_matches(asked, VERBS, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"commands: {', '.join(VERBS)}."
    print(f"derecho: there is no command {asked!r}; {hint} See derecho --help", file=sys.stderr)
    sys.exit(USAGE_ERROR)
