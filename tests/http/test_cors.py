"""Which pages may call, and what browsers are told of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.cors import ANY_ORIGIN, NO_PAGES, Cors, CorsEdits, Page, read_page
from gateway.http.head import Headers
from gateway.http.header_edits import NO_EDITS, HeaderEdits

APP = b"https://app.example.com"
CORS = Cors(
    origins=frozenset([APP]),
    origin_suffixes=((b"https://", b".partner.example"),),
    headers=frozenset([b"authorization", b"content-type"]),
    expose=(b"ETag", b"X-Total-Count"),
    max_age=600,
)
ANY = Cors(origins=frozenset([ANY_ORIGIN]), headers=frozenset([b"*"]), max_age=0)
GET = Page(APP, "GET", ())


class TestAPage:
    @pytest.mark.parametrize("name", [b"Origin", b"origin", b"ORIGIN"])
    def test_is_known_by_its_origin(self, name: bytes) -> None:
        assert read_page([(b"Host", b"a"), (name, APP)]) == Page(APP, "", ())

    @pytest.mark.parametrize("headers", [[], [(b"X-Origin", APP)], [(b"origin", APP), (b"Origin", APP)]])
    def test_is_nobody_without_one_origin(self, headers: Headers) -> None:
        assert read_page(headers) is None

    def test_asks_beforehand(self) -> None:
        asked = read_page(
            [
                (b"Origin", APP),
                (b"access-control-request-METHOD", b"PATCH"),
                (b"Access-Control-Request-Headers", b"content-type, X-A ,,"),
                (b"access-control-request-headers", b"x-b"),
                (b"Access-Control-Request-Private-Network", b"true"),
            ]
        )
        assert asked == Page(APP, "PATCH", (b"content-type", b"x-a", b"x-b"))

    @pytest.mark.parametrize(
        "methods",
        [
            [b""], [b"get"], [b"GET, PUT"], [b"GET\t"], [b"G\xc3\x89T"], [b"*"], [b"X" * 33],
            [b"GET", b"GET"], [b"TRACE"], [b"CONNECT"],
        ],
    )  # fmt: skip
    def test_asks_for_nothing_that_is_no_one_method(self, methods: list[bytes]) -> None:
        page = read_page([(b"origin", APP), *((b"access-control-request-method", each) for each in methods)])
        assert page == Page(APP, "", ())


class TestAnOrigin:
    @pytest.mark.parametrize(
        "origin",
        [APP, b"HTTPS://App.Example.COM", b"https://a.partner.example", b"https://b.a.partner.example"],
    )
    def test_is_admitted_if_it_is_named(self, origin: bytes) -> None:
        assert CORS.admits(origin)

    @pytest.mark.parametrize(
        "origin",
        [
            b"", b"null", b"*", b"http://app.example.com", b"https://app.example.com:8443",
            b"https://app.example.com.", b"https://app.example.com/", b"https://app.example.com.evil.test",
            b"https://evilapp.example.com", b"https://partner.example", b"https://.partner.example",
            b"https://evil.test/.partner.example", b"https://evil.test#.partner.example",
            b"https://user@.partner.example", b"https://evil.test:1.partner.example",
            b"https://a..partner.example", b"https://evilpartner.example", b"http://a.partner.example",
            b"https://a.partner.example, https://evil.test", b"https://\xff.partner.example",
            b"https:///a.partner.example", b"app.example.com", b"https://app.example.com https://evil.test",
        ],
    )  # fmt: skip
    def test_is_not_if_it_only_looks_like_one(self, origin: bytes) -> None:
        assert not CORS.admits(origin)
        assert CORS.lines(Page(origin, "", ())) == ((b"vary", b"Origin"),)
        assert [name for name, _ in CORS.preflight(Page(origin, "GET", ()))] == [b"vary"]

    @given(st.binary(max_size=40))
    def test_is_never_admitted_by_chance(self, origin: bytes) -> None:
        """What is sent back is a line of its own, whatever was sent."""
        if CORS.admits(origin):
            assert origin.lower() == APP or origin.lower().endswith(b".partner.example")
            assert not set(origin) & set(b"\r\n\0 ,")

    def test_goes_back_as_it_came(self) -> None:
        """The browser compares the bytes."""
        page = Page(b"https://A.partner.example", "GET", ())
        assert dict(CORS.lines(page))[b"access-control-allow-origin"] == b"https://A.partner.example"

    @pytest.mark.parametrize("origin", [APP, b"null", b"https://evil.test"])
    def test_of_any_kind_may_be_admitted(self, origin: bytes) -> None:
        assert ANY.lines(Page(origin, "", ())) == ((b"access-control-allow-origin", b"*"),)


class TestAPreflight:
    def test_says_all_that_the_browser_goes_by(self) -> None:
        assert CORS.preflight(Page(APP, "DELETE", (b"authorization",))) == (
            (b"vary", b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers"),
            (b"access-control-allow-origin", APP),
            (b"access-control-allow-methods", b"DELETE"),
            (b"access-control-allow-headers", b"authorization, content-type"),
            (b"access-control-max-age", b"600"),
        )

    def test_lets_cookies_along_where_it_is_said(self) -> None:
        cors = Cors(origins=frozenset([APP]), credentials=True)
        assert (b"access-control-allow-credentials", b"true") in cors.preflight(GET)
        assert (b"access-control-allow-credentials", b"true") in cors.lines(GET)
        assert b"access-control-allow-credentials" not in dict(CORS.preflight(GET))

    def test_names_what_is_asked_for_where_all_may_be_set(self) -> None:
        """`*` would not stand for Authorization."""
        lines = dict(ANY.preflight(Page(b"null", "PUT", (b"authorization", b"x-a", b"no way", b"b\xffd"))))
        assert lines[b"access-control-allow-headers"] == b"authorization, x-a"
        assert b"access-control-allow-headers" not in dict(ANY.preflight(Page(b"null", "PUT", ())))

    def test_is_granted_by_origin_and_headers(self) -> None:
        assert CORS.grants(Page(APP, "GET", (b"content-type", b"authorization")))
        assert ANY.grants(Page(b"null", "GET", (b"x-anything",)))
        assert not CORS.grants(Page(APP, "GET", (b"content-type", b"x-a")))
        assert not CORS.grants(Page(b"https://evil.test", "GET", ()))
        assert not NO_PAGES.grants(GET)


class TestAResponse:
    def test_says_nothing_of_the_backends_about_pages(self) -> None:
        headers = [
            (b"Access-Control-Allow-Origin", b"*"),
            (b"ACCESS-CONTROL-ALLOW-CREDENTIALS", b"true"),
            (b"access-control-anything-new", b"1"),
            (b"X-Access-Control", b"stays"),
        ]
        assert CorsEdits(NO_EDITS, CORS.lines(None)).apply(headers) == [
            (b"X-Access-Control", b"stays"),
            (b"vary", b"Origin"),
        ]

    def test_says_what_a_page_may_read(self) -> None:
        assert CorsEdits(NO_EDITS, CORS.lines(GET)).apply([(b"ETag", b"1")]) == [
            (b"ETag", b"1"),
            (b"vary", b"Origin"),
            (b"access-control-allow-origin", APP),
            (b"access-control-expose-headers", b"ETag, X-Total-Count"),
        ]

    @pytest.mark.parametrize(
        ("before", "after"),
        [
            ([], [b"Origin"]),
            ([b""], [b"Origin"]),
            ([b"Accept-Encoding"], [b"Accept-Encoding, Origin"]),
            ([b"Accept", b"Cookie"], [b"Accept", b"Cookie, Origin"]),
            ([b"accept , ORIGIN", b"Cookie"], [b"accept , ORIGIN", b"Cookie"]),
            ([b"*"], [b"*"]),
            ([b"X-Origin"], [b"X-Origin, Origin"]),
        ],
    )
    def test_varies_by_origin_once(self, before: list[bytes], after: list[bytes]) -> None:
        headers = [(b"Vary", value) for value in before]
        for page in (None, GET, Page(b"https://evil.test", "", ())):
            got = CorsEdits(NO_EDITS, CORS.lines(page)).apply(headers)
            assert [value for name, value in got if name.lower() == b"vary"] == after
        assert headers == [(b"Vary", value) for value in before]

    def test_does_not_vary_where_every_page_is_told_the_same(self) -> None:
        headers = [(b"Vary", b"Accept")]
        same = {tuple(CorsEdits(NO_EDITS, ANY.lines(page)).apply(headers)) for page in (None, GET)}
        assert same == {((b"Vary", b"Accept"), (b"access-control-allow-origin", b"*"))}

    def test_is_edited_by_its_route_first(self) -> None:
        edits = CorsEdits(HeaderEdits.of({"Vary": "Cookie"}, ["Server"]), CORS.lines(None))
        headers = [(b"Server", b"x"), (b"Vary", b"Accept")]
        assert edits.apply(headers) == [(b"Vary", b"Cookie, Origin")]

    def test_has_nothing_of_it_before_or_behind(self) -> None:
        headers = [(b"Link", b"</a>"), (b"access-control-allow-origin", b"*"), (b"Server", b"x")]
        edits = CorsEdits(HeaderEdits.of({}, ["Server"]), CORS.lines(GET))
        assert edits.taken_out(headers) == [(b"Link", b"</a>")]
