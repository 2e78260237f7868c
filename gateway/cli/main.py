"""The `gateway` command: one door in, one door out.

Whatever happens inside, the user sees an answer or one sentence, never a traceback, and
the exit code says which it was: 0 fine, 1 no, 2 wrong usage.

The command's words live in `commands`, one file per family, each loaded only when it is
asked for: `gateway --version` runs in every shell prompt, script and container probe, and
must not pay for a database library.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

FINE, NO, WRONG_USAGE = 0, 1, 2


def main() -> NoReturn:
    """The entry point: run the command line of this process and exit."""
    # `gateway check >&-`: Python starts with None where a stream was closed.
    sys.stdout = sys.stdout or Path(os.devnull).open("w")  # noqa: SIM115  open to the end
    sys.stderr = sys.stderr or Path(os.devnull).open("w")  # noqa: SIM115
    try:
        code = run(sys.argv[1:])
        sys.stdout.flush()
    except OSError as error:  # what was said last is lost: a full disk, a reader that is gone
        close_stdout()
        code = NO
        if not isinstance(error, BrokenPipeError):
            print(f"Error: {sentence(error)}", file=sys.stderr)
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code."""
    if arguments == ["--version"]:
        from gateway.cli.version import version

        print(f"gateway {version()}")
        return FINE
    import click

    from gateway.cli.commands import gateway

    try:
        result = gateway.main(arguments, prog_name="gateway", standalone_mode=False)
        return result if isinstance(result, int) else FINE
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        print("Stopped.", file=sys.stderr)
        return NO
    except BrokenPipeError:  # `gateway check | head -1`: the reader has seen enough
        close_stdout()
        return NO
    except Exception as error:
        print(f"Error: {sentence(error)}", file=sys.stderr)
        return NO


def sentence(error: Exception) -> str:
    """What to tell the user about an error that reached the door."""
    from gateway.cli.output import printable
    from gateway.errors import GatewayError

    if os.environ.get("GATEWAY_TRACEBACK"):
        import traceback

        return "".join(traceback.format_exception(error))
    if isinstance(error, GatewayError):
        return printable(error.detail)
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename is not None else ""
        return f"{place}{error.strerror or error}"
    return (
        f"this is a defect of the gateway, please report it: {type(error).__name__}: {error} "
        "(set GATEWAY_TRACEBACK=1 to see where)"
    )


def close_stdout() -> None:
    """Nobody reads what is still buffered; without this, Python complains about it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
