"""Fixtures that every room shares."""

from __future__ import annotations

import signal

import pytest
from hypothesis import settings

# A machine that is busy with other tests is slow now and then; that is no failure.
settings.register_profile("gateway", deadline=None)
settings.load_profile("gateway")

# A shell's background job ignores Ctrl-C, and what it starts inherits that: here it is as for a person.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
