"""One canonical form for e-mail addresses, so that two spellings can't be two accounts.

Only the canonical form is stored, compared, put into tokens and sent to backends.
NFKC and casefold join what looks or reads the same (CVE-2019-19844).
"""

from __future__ import annotations

import unicodedata

from gateway.errors import InvalidField

MAX_EMAIL_BYTES = 254
"""RFC 5321 §4.5.3.1.3: a path of 256 octets less the angle brackets."""


def canonical_email(text: str) -> str:
    """`text` trimmed, NFKC, casefolded. Raises InvalidField if that is no address.

    The rule is lax about what a mail server would take (`root@localhost` is
    fine) and strict about what could break a header, a log line or a comparison.
    """
    email = fold(text)
    local, at, domain = email.partition("@")
    if not (local and at and domain) or "@" in domain or not _harmless(email):
        raise InvalidField("The e-mail address is not valid.")
    return email


def canonical_or_empty(text: str) -> str:
    """The canonical form, or "", which no account has: what is no address is looked up like any other."""
    try:
        return canonical_email(text)
    except InvalidField:
        return ""


def fold(text: str) -> str:
    """Trim, NFKC and casefold until nothing changes any more: one casefold may undo NFKC."""
    if len(text) > 4 * MAX_EMAIL_BYTES:
        return ""
    folded = ""
    while folded != text:
        folded, text = text, unicodedata.normalize("NFKC", text.strip()).casefold()
    return folded


def _harmless(email: str) -> bool:
    """Printable, no blanks, nothing invisible or unassigned, and short enough to be an address."""
    # isprintable() is False for the Unicode categories Other (control, format, surrogate,
    # private use, unassigned) and Separator.
    return email.isprintable() and " " not in email and len(email.encode()) <= MAX_EMAIL_BYTES
