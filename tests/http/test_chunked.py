"""However a chunked body is cut up on its way, it means the same."""

from __future__ import annotations

import random

import pytest

from gateway.http.chunked import ChunkedBody


def fed(data: bytes, cuts: list[int]) -> tuple[bytes, bytes, bool, bool]:
    """Body, what follows it, whether it is done, whether it is broken."""
    chunks, body, rest = ChunkedBody(), b"", b""
    for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        if chunks.done or chunks.broken:
            rest += data[begin:end]
        else:
            part, rest = chunks.feed(data[begin:end])
            body += part
    return body, rest, chunks.done, chunks.broken is not None


@pytest.mark.parametrize("seed", range(300))
def test_one_meaning_in_whatever_pieces_it_comes(seed: int) -> None:
    dice = random.Random(seed)
    body = data = b""
    for _ in range(dice.randrange(20)):
        chunk = dice.randbytes(dice.choice([1, 2, 9, 10, 15, 16, 17, 200, 255, 256, 300, 5000]))
        form = dice.choice([b"%x", b"%X", b"%04x", b"%x;name=value"])
        body, data = body + chunk, data + form % len(chunk) + b"\r\n" + chunk + b"\r\n"
    data += b"0\r\n" + dice.choice([b"", b"A: b\r\n"]) + b"\r\nGET /next"
    for count in (0, 1, 5, min(50, len(data) - 10)):
        cuts = sorted(dice.randrange(len(data)) for _ in range(count))
        got, rest, done, broken = fed(data, cuts)
        assert (got, done, broken) == (body, True, False)
        assert rest.endswith(b"GET /next"[-len(rest) :])


@pytest.mark.parametrize(
    "data",
    [
        b"1\r\nA\r\n" * 3 + b"1\r\nAB\r\n0\r\n\r\n",
        b"1\r\nA\r\n" * 3 + b"2\r\nA\r\n0\r\n\r\n",
        b"1\r\nA\r\n" * 3 + b"1\nA\r\n0\r\n\r\n",
        b"1\r\nA\r\n" * 3 + b"1 \r\nA\r\n0\r\n\r\n",
        b"1\r\nA\r\n" * 3 + b"-1\r\nA\r\n0\r\n\r\n",
        b"1\r\nA\r\n" * 3 + b"1\r\nA\n\r\n0\r\n\r\n",
        b"1\r\nA\r\n" * 3 + b"\r\n\r\n0\r\n\r\n",
    ],
)
def test_what_is_broken_is_broken_in_every_piece(data: bytes) -> None:
    for cuts in ([], *([at] for at in range(1, len(data))), list(range(1, len(data)))):
        body, _, done, broken = fed(data, list(cuts))
        assert body[:3] == b"AAA"
        assert (done, broken) == (False, True)
