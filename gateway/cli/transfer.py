"""`gateway users import` and `export`: many accounts at once, out of a file and into one."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from gateway.cli.accounts import actor, with_accounts
from gateway.cli.options import config_option
from gateway.cli.output import complain, counted, printable, say

if TYPE_CHECKING:
    from gateway.accounts.service import Accounts
    from gateway.accounts.transfer import Imported, Incoming

MOST_SHOWN = 100
"""Mistakes that are printed; the others are counted."""

_AtLine = tuple[int, str]
"""A line of the file, and what is to be said of it."""
_SLOW = "each try to log in holds up others for seconds, until its owner has logged in once"

kinds = click.Choice(["csv", "json"])


@click.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE")
@click.option("--format", "kind", type=kinds, help="What FILE holds; left out: what its name ends with.")
@click.option(
    "--existing", type=click.Choice(["refuse", "skip"]), default="refuse", show_default=True,
    help="What to do about addresses that have an account.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Find every mistake, and change nothing.")
@config_option
def import_(file: Path, kind: str | None, existing: str, dry_run: bool, config: Path) -> None:
    """Add the accounts of a CSV or JSON file: all of them, or none.

    Fields: email, passwordHash, isAdmin, roles, disabled, id, createdAt; only email must be
    there. CSV has their names in its first line and blanks between roles; JSON is a list of
    objects. Hashes are bcrypt's ($2a$, $2b$, $2y$) and are replaced by better ones when their
    owners log in. Without a hash nobody can log in until `gateway users set --password`.

    Every mistake is printed with its line, and every hash that is slow to compare (a cost of 15
    or 16; dearer ones are mistakes). Accounts that exist are never changed.

    \b
    Example:
      gateway users import people.csv --dry-run
      gateway users import people.json --existing skip
    """
    if not file.is_file():
        raise click.UsageError("FILE is read twice, so it can't be a pipe; write it to a file first.")
    kind = kind or _kind(file)
    mistakes, dear = _looked_at(file, kind)
    _refuse(mistakes, file)
    _warn(dear, file)
    done = with_accounts(config, lambda accounts: _add(accounts, file, kind, existing == "skip", dry_run))
    skipped = f", skipped {done.skipped} that exist" if done.skipped else ""
    say(f"{'would import' if dry_run else 'imported'} {counted(done.added, 'account')}{skipped}", fg="green")


@click.command()
@click.option("--format", "kind", type=kinds, default="csv", show_default=True, help="How to write them.")
@click.option(
    "--with-hashes", is_flag=True, help="The password hashes too. Whoever has them can guess at them."
)
@click.option(
    "-o", "--output", "target", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help="A new file that only you can read; left out: stdout.",
)  # fmt: skip
@config_option
def export(kind: str, with_hashes: bool, target: Path | None, config: Path) -> None:
    """Write all accounts as CSV or JSON, which `import` reads.

    Without hashes it is a list of people; with them it is a backup of the accounts. Sessions
    are not in it.

    \b
    Example:
      gateway users export > people.csv
      gateway users export --format json --with-hashes -o accounts.json
    """
    with _opened(target) as file:
        count = with_accounts(config, lambda accounts: _export(accounts, file, kind, with_hashes))
    complain(f"exported {counted(count, 'account')}", fg="green")


def _kind(file: Path) -> str:
    kind = file.suffix.lower().removeprefix(".")
    if kind not in kinds.choices:
        raise click.UsageError(
            "The file's name ends neither with .csv nor with .json; say which by --format."
        )
    return kind


def _looked_at(file: Path, kind: str) -> tuple[list[_AtLine], list[_AtLine]]:
    """What is wrong, and what will be slow."""
    from gateway.accounts.passwords import DEAR, cost_of
    from gateway.cli.account_files import Mistake, read_accounts

    mistakes: list[_AtLine] = []
    dear: list[_AtLine] = []
    for found in read_accounts(file, kind):
        if isinstance(found, Mistake):
            mistakes.append((found.line, found.sentence))
        elif (cost := cost_of(found.password_hash)) > DEAR:
            dear.append((found.line, f"its hash has cost {cost}, {2 ** (cost - 12)} times the work of 12"))
    return mistakes, dear


async def _add(accounts: Accounts, file: Path, kind: str, skip: bool, dry_run: bool) -> Imported:
    from gateway.accounts.transfer import InTheWay

    def again() -> Iterator[Incoming]:
        return _unchanged(file, kind)

    try:
        return await accounts.transfer.add(again, skip_existing=skip, only_try=dry_run, actor=actor())
    except InTheWay as in_the_way:
        _refuse(in_the_way.problems, file)
        raise


def _unchanged(file: Path, kind: str) -> Iterator[Incoming]:
    """The accounts of a file that was found right a moment ago."""
    from gateway.cli.account_files import Mistake, read_accounts

    try:
        for found in read_accounts(file, kind):
            if isinstance(found, Mistake):
                raise click.ClickException(
                    f"{printable(str(file))} changed while it was read; nothing was imported"
                )
            yield found
    except OSError as error:
        raise click.ClickException(
            f"{printable(str(file))}: {error.strerror}; nothing was imported"
        ) from None


def _refuse(problems: list[_AtLine], file: Path) -> None:
    """Print what is wrong, in the order of lines, and stop."""
    if problems:
        raise click.ClickException(f"{_print(problems, 'mistake', file)}; nothing was imported")


def _warn(dear: list[_AtLine], file: Path) -> None:
    """Whoever tries such an account, with whatever password, keeps others waiting."""
    if dear:
        complain(f"{_print(dear, 'slow account', file)}: {_SLOW}", fg="yellow")


def _print(problems: list[_AtLine], noun: str, file: Path) -> str:
    """How many there are."""
    for line, sentence in sorted(problems)[:MOST_SHOWN]:
        complain(printable(f"{file}:{line}  {sentence}"))
    more = f", of which {MOST_SHOWN} are shown" if len(problems) > MOST_SHOWN else ""
    return f"{counted(len(problems), noun)}{more}"


async def _export(accounts: Accounts, file: TextIO, kind: str, with_hashes: bool) -> int:
    from gateway.cli.account_files import CsvWriter, JsonWriter, as_fields

    writer = (CsvWriter if kind == "csv" else JsonWriter)(file, with_hashes=with_hashes)
    count = 0
    async for batch in accounts.transfer.all():
        for user, password_hash in batch:
            writer.write(as_fields(user, password_hash if with_hashes else ""))
        count += len(batch)
    writer.end()
    if with_hashes:
        await accounts.transfer.note_export(count, actor=actor())
    return count


@contextmanager
def _opened(target: Path | None) -> Iterator[TextIO]:
    """stdout, or a file that was not there; it is gone again if the body fails."""
    if target is None:
        yield sys.stdout
        return
    try:
        descriptor = os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        raise click.ClickException(f"{printable(str(target))} is there already; name a new file") from None
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            yield file
    except BaseException:
        target.unlink(missing_ok=True)
        raise
