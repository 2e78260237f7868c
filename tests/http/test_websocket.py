"""What a client that wants another protocol says, and the credential that browsers can send with it."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BadRequest, DuplicateCredential
from gateway.http.head import Headers
from gateway.http.websocket import check_handshake, lone_bearer, read_upgrade, take_bearer

UPGRADE = (b"Connection", b"Upgrade")
KEY = (b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ==")
VERSION = (b"Sec-WebSocket-Version", b"13")
OFFERS = b"Sec-WebSocket-Protocol"


class TestTheProtocolAskedFor:
    @pytest.mark.parametrize(
        ("connection", "upgrade", "token"),
        [
            (b"Upgrade", b"websocket", b"websocket"),
            (b"upgrade", b"WebSocket", b"websocket"),
            (b"keep-alive, Upgrade", b" websocket\t", b"websocket"),
            (b",, UPGRADE ,x", b"SPDY/3.1", b"spdy/3.1"),
            (b"Upgrade", b"h2c", b"h2c"),
        ],
    )
    def test_is_read(self, connection: bytes, upgrade: bytes, token: bytes) -> None:
        assert read_upgrade([(b"CONNECTION", connection), (b"upgrade", upgrade)]) == token

    def test_also_where_connection_stands_on_several_lines(self) -> None:
        lines = [(b"Connection", b"keep-alive"), (b"Upgrade", b"websocket"), UPGRADE]
        assert read_upgrade(lines) == b"websocket"

    @pytest.mark.parametrize(
        "lines",
        [
            [],
            [UPGRADE],
            [(b"Upgrade", b"websocket")],
            [(b"Upgrade", b"websocket"), (b"Connection", b"keep-alive")],
            [(b"Upgrade", b"websocket"), (b"Connection", b"upgraded")],
            [(b"Upgrade", b"websocket"), (b"Connection", b"not upgrade")],
            [UPGRADE, (b"Upgrade", b"websocket, h2c")],
            [UPGRADE, (b"Upgrade", b"websocket,")],
            [UPGRADE, (b"Upgrade", b"websocket"), (b"Upgrade", b"websocket")],
            [UPGRADE, (b"Upgrade", b"websocket"), (b"upgrade", b"h2c")],
            [UPGRADE, (b"Upgrade", b"")],
            [UPGRADE, (b"Upgrade", b"web socket")],
            [UPGRADE, (b"Upgrade", b"a/b/c")],
            [UPGRADE, (b"Upgrade", b"websocket\x00")],
            [UPGRADE, (b"Upgrade", b"\xffwebsocket")],
            [UPGRADE, (b"X-Upgrade", b"websocket")],
        ],
    )
    def test_is_nothing_where_the_wish_is_not_plain(self, lines: Headers) -> None:
        assert read_upgrade(lines) is None


class TestTheHandshake:
    def test_of_the_rfc_is_fine(self) -> None:
        check_handshake("GET", "1.1", [VERSION, KEY])

    @given(st.binary(min_size=16, max_size=16))
    def test_takes_every_key_of_16_bytes(self, key: bytes) -> None:
        check_handshake("GET", "1.1", [(b"sec-websocket-KEY", b" " + base64.b64encode(key)), VERSION])

    @given(st.binary(max_size=40).filter(lambda key: len(key) != 16))
    def test_takes_no_key_of_another_length(self, key: bytes) -> None:
        with pytest.raises(BadRequest):
            check_handshake("GET", "1.1", [(b"Sec-WebSocket-Key", base64.b64encode(key)), VERSION])

    @pytest.mark.parametrize(
        ("method", "http_version", "lines"),
        [
            ("POST", "1.1", [KEY, VERSION]),
            ("GET", "1.0", [KEY, VERSION]),
            ("GET", "1.1", [KEY]),
            ("GET", "1.1", [VERSION]),
            ("GET", "1.1", [KEY, KEY, VERSION]),
            ("GET", "1.1", [KEY, VERSION, VERSION]),
            ("GET", "1.1", [KEY, (b"Sec-WebSocket-Version", b"8")]),
            ("GET", "1.1", [KEY, (b"Sec-WebSocket-Version", b"13, 8")]),
            ("GET", "1.1", [KEY, (b"Sec-WebSocket-Version", b"013")]),
            ("GET", "1.1", [(b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ"), VERSION]),
            ("GET", "1.1", [(b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25j*Q=="), VERSION]),
        ],
    )
    def test_that_is_none_is_a_bad_request(self, method: str, http_version: str, lines: Headers) -> None:
        with pytest.raises(BadRequest) as raised:
            check_handshake(method, http_version, lines)
        assert (raised.value.status, raised.value.close) == (400, True)


class TestTheCredentialAmongTheSubprotocols:
    @pytest.mark.parametrize(
        ("offers", "left"),
        [
            ([b"chat, gateway.bearer.a.b-c_d"], [b"chat"]),
            ([b"gateway.bearer.a.b-c_d ,chat,  mqtt"], [b"chat, mqtt"]),
            ([b"chat,mqtt", b"gateway.bearer.a.b-c_d"], [b"chat,mqtt"]),
            ([b"\tGATEWAY.Bearer.a.b-c_d "], []),
            ([b",, gateway.bearer.a.b-c_d ,"], []),
            ([b"gateway.bearer, gateway.bearer.a.b-c_d", b"chat "], [b"gateway.bearer", b"chat "]),
        ],
    )
    def test_is_taken_out(self, offers: list[bytes], left: list[bytes]) -> None:
        token, headers = take_bearer([KEY, *((OFFERS, offer) for offer in offers), VERSION])
        assert token == b"a.b-c_d"
        assert headers == [KEY, *((OFFERS, offer) for offer in left), VERSION]

    def test_is_not_looked_for_elsewhere(self) -> None:
        lines = [(b"Sec-WebSocket-Extensions", b"gateway.bearer.x"), (OFFERS, b"xgateway.bearer.y, chat,,")]
        assert take_bearer(lines) == (None, lines)

    def test_may_be_empty_and_then_holds_for_nothing(self) -> None:
        assert take_bearer([(OFFERS, b"gateway.bearer.")]) == (b"", [])

    @pytest.mark.parametrize(
        "offers",
        [
            [b"gateway.bearer.a, gateway.bearer.a"],
            [b"gateway.bearer.a", b"gateway.bearer.b"],
            [b"gateway.bearer.a, chat", b"Gateway.Bearer."],
        ],
    )
    def test_must_be_the_only_one(self, offers: list[bytes]) -> None:
        with pytest.raises(DuplicateCredential):
            take_bearer([(OFFERS, offer) for offer in offers])

    @pytest.mark.parametrize(
        ("offers", "lone"),
        [
            ([b"gateway.bearer.x"], b"gateway.bearer.x"),
            ([b" Gateway.bearer.x ,"], b"Gateway.bearer.x"),
            ([b"chat, gateway.bearer.x"], None),
            ([b"gateway.bearer.x", b"chat"], None),
            ([b"chat"], None),
            ([], None),
        ],
    )
    def test_is_known_as_it_was_sent_if_nothing_else_was_offered(
        self, offers: list[bytes], lone: bytes | None
    ) -> None:
        assert lone_bearer([(OFFERS, offer) for offer in offers]) == lone


_TOKEN = st.text("abcXYZ019.-_", max_size=8).map(str.encode)
_BEARER = st.tuples(st.sampled_from([b"gateway.bearer.", b"Gateway.Bearer.", b"GATEWAY.BEARER."]), _TOKEN)
_OTHER = st.text("abgwGW.-", min_size=1, max_size=20).map(str.encode)
_BLANK = st.sampled_from([b"", b" ", b"\t", b"  "])
_LINE = st.lists(st.tuples(_BLANK, st.one_of(_OTHER, _BEARER, st.just(b"")), _BLANK), max_size=4)


@given(st.lists(st.one_of(_LINE, st.just(None)), max_size=4))
def test_whatever_is_offered_the_backend_sees_all_but_the_credential(
    lines: list[list[tuple[bytes, bytes | tuple[bytes, bytes], bytes]] | None],
) -> None:
    headers: Headers = []
    tokens: list[bytes] = []
    others: list[bytes] = []
    for line in lines:
        if line is None:
            headers.append((b"X-Other", b"gateway.bearer.not-here"))
            continue
        texts = []
        for before, offer, after in line:
            if isinstance(offer, tuple):
                tokens.append(offer[1])
                offer = b"".join(offer)
            elif offer:
                others.append(offer)
            texts.append(before + offer + after)
        headers.append((OFFERS, b",".join(texts)))
    if len(tokens) > 1:
        with pytest.raises(DuplicateCredential):
            take_bearer(headers)
        return
    token, left = take_bearer(headers)
    assert token == (tokens[0] if tokens else None)
    values = [value for name, value in left if name == OFFERS]
    seen = [item.strip(b" \t") for value in values for item in value.split(b",")]
    assert [item for item in seen if item] == others
    assert [line for line in left if line[0] != OFFERS] == [line for line in headers if line[0] != OFFERS]
