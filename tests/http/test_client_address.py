"""The client's address: the socket's word, unless a trusted proxy vouches for another."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.client_address import Client, ClientAddresses, TrustedProxies, parse_address
from gateway.http.head import Head

PROXIES = TrustedProxies((ip_network("10.0.0.0/8"), ip_network("fd00::/8")))


def ask(peer: str | None, *lines: tuple[bytes, bytes], trusted: TrustedProxies = PROXIES) -> Client:
    head = Head("GET", b"/", list(lines), "1.1", "http", peer)
    return ClientAddresses(trusted).of(head)


def test_a_stranger_is_the_address_of_their_socket_whatever_they_claim() -> None:
    client = ask(
        "203.0.113.9",
        (b"X-Forwarded-For", b"10.0.0.1"),
        (b"X-Forwarded-Proto", b"https"),
        (b"X-Forwarded-Host", b"bank.example"),
    )
    assert client == Client(ip_address("203.0.113.9"), "203.0.113.9", b"203.0.113.9", b"http", trusted=False)


def test_hops_are_counted_from_the_right_and_the_clients_own_writing_is_dropped() -> None:
    client = ask("10.0.0.2", (b"X-Forwarded-For", b"1.1.1.1, 203.0.113.9, 10.0.0.1"))
    assert client.address == ip_address("203.0.113.9")
    assert client.forwarded_for == b"203.0.113.9, 10.0.0.1, 10.0.0.2"


def test_several_lines_are_one_list() -> None:
    client = ask("10.0.0.2", (b"x-forwarded-for", b"1.1.1.1"), (b"X-FORWARDED-FOR", b"203.0.113.9"))
    assert client.address == ip_address("203.0.113.9")


def test_when_every_hop_is_ours_the_first_one_asked() -> None:
    assert ask("10.0.0.2", (b"x-forwarded-for", b"10.9.9.9")).address == ip_address("10.9.9.9")


@pytest.mark.parametrize("junk", [b"unknown", b"_hidden", b"999.1.1.1", b"\xff", b"a, b"])
def test_behind_an_entry_that_is_no_address_nobody_is_known(junk: bytes) -> None:
    client = ask("10.0.0.2", (b"x-forwarded-for", b"203.0.113.9, " + junk))
    assert (client.address, client.name) == (None, "unknown")
    assert client.forwarded_for == b"10.0.0.2"


@pytest.mark.parametrize("gap", [b"", b" ", b",,"])
def test_empty_entries_are_none(gap: bytes) -> None:
    client = ask("10.0.0.2", (b"x-forwarded-for", b"203.0.113.9, " + gap), (b"x-forwarded-for", b""))
    assert client.address == ip_address("203.0.113.9")


def test_a_trusted_proxy_says_how_and_for_which_host_the_client_came() -> None:
    client = ask("10.0.0.2", (b"X-Forwarded-Proto", b"HTTPS"), (b"X-Forwarded-Host", b"shop.example"))
    assert (client.forwarded_proto, client.forwarded_host, client.trusted) == (
        b"https",
        b"shop.example",
        True,
    )


def test_a_scheme_that_is_none_is_not_passed_on() -> None:
    assert ask("10.0.0.2", (b"X-Forwarded-Proto", b"gopher")).forwarded_proto == b"http"


def test_nobody_knows_who_sits_behind_an_untrusted_unix_socket() -> None:
    assert ask(None, (b"x-forwarded-for", b"203.0.113.9")) == Client(
        None, "unix", b"", b"http", trusted=False
    )


def test_a_trusted_unix_socket_speaks_for_its_clients() -> None:
    client = ask(None, (b"x-forwarded-for", b"203.0.113.9"), trusted=TrustedProxies(unix=True))
    assert (client.address, client.forwarded_for) == (ip_address("203.0.113.9"), b"203.0.113.9")
    assert ask(None, trusted=TrustedProxies(unix=True)).address is None


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        (" 192.0.2.1:443 ", "192.0.2.1"),
        ('"[2001:db8::1]:443"', "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
    ],
)
def test_addresses_are_read_as_proxies_write_them(text: str, address: str) -> None:
    assert parse_address(text) == ip_address(address)


@given(st.text())
def test_no_text_breaks_the_parser(text: str) -> None:
    address = parse_address(text)
    assert address is None or str(address)


@given(st.lists(st.ip_addresses(v=4).filter(lambda a: a not in PROXIES), min_size=1))
def test_a_client_can_prepend_whatever_they_like_and_change_nothing(claims: list[object]) -> None:
    forged = ", ".join(map(str, claims)).encode()
    honest = ask("10.0.0.2", (b"x-forwarded-for", b"203.0.113.9"))
    assert ask("10.0.0.2", (b"x-forwarded-for", forged + b", 203.0.113.9")) == honest
