"""What a new password must be, after NIST SP 800-63B §3.1.1.2. Passwords that exist already are never judged.

A password must be long enough and must not be one that guessers try first: a common
one, or the account's own address. Nothing else: rules on which kinds of characters
must occur make people choose `Password1!`, and are advised against there. It is
compared as `fold` leaves it, so capitals, blanks around it and full-width letters
make no difference.

The list is read when the first new password is chosen: a gateway that only proxies
never holds it.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Final

from gateway.accounts.emails import fold
from gateway.accounts.passwords import refuse_unfit
from gateway.errors import InvalidField

_COMMON: Final = "The password is among the most common ones, which are tried first. Choose another one."
_LIKE_EMAIL: Final = "The password must not be the e-mail address, nor the part of it before the @."


class PasswordRules:
    """`min_length` is in characters."""

    def __init__(self, *, min_length: int) -> None:
        self._min_length = min_length

    def refuse_unfit(self, password: str, email: str) -> None:
        """Raises InvalidField with a sentence that says why. `email` is in canonical form."""
        refuse_unfit(password, min_length=self._min_length)
        refuse_password_like_email(password, email)
        if fold(password) in common_passwords():
            raise InvalidField(_COMMON)


def refuse_password_like_email(password: str, email: str) -> None:
    if fold(password) in (email, email.partition("@")[0]):
        raise InvalidField(_LIKE_EMAIL)


@cache
def common_passwords() -> frozenset[str]:
    """As the file has them: below its head, folded."""
    text = files("gateway.accounts").joinpath("common_passwords.txt").read_text("utf-8")
    return frozenset(text.partition("\n\n")[2].splitlines())
