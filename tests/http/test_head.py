"""A head is bytes, and its path ends at the first question mark."""

from __future__ import annotations

import pytest

from gateway.http.head import Head


@pytest.mark.parametrize(
    ("target", "path"), [(b"/a?b?c", b"/a"), (b"/a?", b"/a"), (b"/%3f", b"/%3f"), (b"/\xff", b"/\xff")]
)
def test_the_query_is_no_part_of_the_path(target: bytes, path: bytes) -> None:
    assert Head("GET", target, [], "1.1", "http", None).path == path
