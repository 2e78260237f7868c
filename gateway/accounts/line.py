"""A transaction's connection, as far as others may end it.

A server that is stopped, not gone, acknowledges every byte and answers nothing; no
time-out of the network or of the server itself ends that wait. So whoever has waited
long enough hangs up: the socket is shut down under the thread that reads from it.
"""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress


class Line:
    """Held by the thread of a transaction; hung up by anybody else."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fileno: int | None = None
        self._hung_up = False

    def hold(self, fileno: int | None) -> None:
        """From now on this is the connection (None: one that nobody can hang up).

        Raises OSError if nobody waits for the transaction any more.
        """
        with self._lock:
            if self._hung_up:
                raise OSError("nobody waits for this transaction any more")
            self._fileno = fileno

    def release(self) -> None:
        """The connection is somebody else's now."""
        with self._lock:
            self._fileno = None

    def hang_up(self) -> None:
        """End what is said on it; the server rolls back. Without a connection: it gets none."""
        with self._lock:
            self._hung_up = True
            # A copy of the descriptor, as closing this socket must not close the driver's.
            if self._fileno is not None:
                with suppress(OSError), socket.socket(fileno=os.dup(self._fileno)) as line:
                    line.shutdown(socket.SHUT_RDWR)
