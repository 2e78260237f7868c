"""What a new password must be. Passwords that exist already are never judged by it."""

from __future__ import annotations

from gateway.accounts.emails import fold
from gateway.accounts.passwords import refuse_unfit
from gateway.errors import InvalidField


class PasswordRules:
    """`min_length` is in characters."""

    def __init__(self, *, min_length: int) -> None:
        self._min_length = min_length

    def refuse_unfit(self, password: str, email: str) -> None:
        """Raises InvalidField with a sentence that says why. `email` is in canonical form."""
        refuse_unfit(password, min_length=self._min_length)
        refuse_password_like_email(password, email)


def refuse_password_like_email(password: str, email: str) -> None:
    if fold(password) == email:
        raise InvalidField("The password must not be the e-mail address.")
