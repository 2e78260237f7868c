"""Who gets the next request, whatever the servers look like."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.proxy.upstream.balance import Balancer, least_loaded


@dataclass(eq=False)
class Candidate:
    name: str = ""
    outstanding: int = 0
    weight: float = 1.0
    out: bool = False
    charged: float = 0.0


def named(text: str, **common: float) -> list[Candidate]:
    return [Candidate(name, **common) for name in text]  # type: ignore[arg-type]


def picks(balancer: Balancer, servers: list[Candidate], count: int) -> str:
    return "".join(balancer.pick(servers).name for _ in range(count))


def test_equals_take_turns() -> None:
    assert picks(Balancer(), named("abc"), 9) == "abcabcabc"


def test_the_one_with_the_least_to_do_is_next() -> None:
    servers = named("abc")
    servers[0].outstanding, servers[1].outstanding, servers[2].outstanding = 5, 2, 3
    assert least_loaded(servers).name == "b"


def test_one_that_is_out_gets_nothing_unless_all_are() -> None:
    servers, balancer = named("abc"), Balancer()
    servers[1].out = True
    assert picks(balancer, servers, 4) == "acac"
    for server in servers:
        server.out = True
    assert picks(balancer, servers, 6) == "babcab", "the one asked least comes first"


def test_a_smaller_weight_gets_that_much_less() -> None:
    servers = named("abc")
    servers[2].weight = 0.1
    seen = Counter(picks(Balancer(), servers, 2100))
    assert seen["a"] == pytest.approx(1000, abs=2)
    assert seen["c"] == pytest.approx(100, abs=2)


def test_a_smaller_weight_is_full_earlier() -> None:
    servers = named("ab", outstanding=4)
    servers[1].weight, servers[1].outstanding = 0.25, 1
    assert least_loaded(servers).name == "a", "4 of a whole share are as much as 1 of a quarter"
    servers[0].outstanding = 5
    assert least_loaded(servers).name == "b"


def test_nobody_saves_turns_up() -> None:
    """A server that was too busy for an hour isn't flooded when it is free again."""
    servers, balancer = named("ab"), Balancer()
    servers[1].outstanding = 9
    assert picks(balancer, servers, 1000) == "a" * 1000
    servers[1].outstanding = 0
    assert Counter(picks(balancer, servers, 100)) == {"a": 50, "b": 50}


Servers = st.lists(
    st.builds(
        Candidate,
        outstanding=st.integers(0, 50),
        weight=st.floats(0.1, 1.0),
        out=st.booleans(),
        charged=st.floats(0, 1000),
    ),
    min_size=1,
    max_size=8,
)


@given(Servers)
def test_never_one_that_is_out_or_has_more_to_do_than_another(servers: list[Candidate]) -> None:
    chosen = Balancer().pick(servers)
    rivals = [server for server in servers if not server.out] or servers
    assert chosen in rivals
    if not chosen.out:
        assert chosen.outstanding / chosen.weight == min(each.outstanding / each.weight for each in rivals)


@given(Servers, st.integers(1, 60))
def test_the_same_servers_always_get_the_same_turns(servers: list[Candidate], count: int) -> None:
    def turns() -> list[int]:
        copies = [
            Candidate(str(index), each.outstanding, each.weight, each.out, each.charged)
            for index, each in enumerate(servers)
        ]
        balancer = Balancer()
        return [int(balancer.pick(copies).name) for _ in range(count)]

    assert turns() == turns()


@given(st.integers(1, 8), st.lists(st.tuples(st.booleans(), st.integers(0, 7)), max_size=200))
def test_whatever_comes_and_goes_the_loads_stay_level(count: int, steps: list[tuple[bool, int]]) -> None:
    """With only arrivals the loads differ by one at most; who is ahead after departures gets nothing more."""
    servers, balancer = named("abcdefgh"[:count]), Balancer()
    for arrives, which in steps:
        server = servers[which % count]
        if arrives:
            loads = [each.outstanding for each in servers]
            chosen = balancer.pick(servers)
            assert chosen.outstanding == min(loads)
            chosen.outstanding += 1
        elif server.outstanding:
            server.outstanding -= 1


@given(st.lists(st.floats(0.1, 1.0), min_size=2, max_size=6))
def test_idle_servers_share_by_weight(weights: list[float]) -> None:
    servers = [Candidate(str(index), weight=weight) for index, weight in enumerate(weights)]
    balancer, rounds = Balancer(), 600
    seen = Counter(balancer.pick(servers).name for _ in range(rounds))
    for server in servers:
        fair = rounds * server.weight / sum(weights)
        assert abs(seen[server.name] - fair) <= len(servers) + 1
