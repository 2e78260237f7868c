"""Cut-offs: what has ended stays ended for as long as a token could outlive it, and not longer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.identity.principal import Principal
from gateway.identity.revocation import Cut, Cutoffs


def person(id: str = "ada", session: str = "s1", version: int = 3) -> Principal:
    return Principal(id, "ada@example.com", False, (), session, version, 2000)


def test_nothing_is_cut_off_at_first() -> None:
    cutoffs = Cutoffs()
    assert not cutoffs.cuts(person())
    assert len(cutoffs) == 0


def test_a_logout_ends_one_session_of_one_user() -> None:
    cutoffs = Cutoffs()
    cutoffs.end_session("s1", until=1000)
    assert cutoffs.cuts(person(session="s1"))
    assert not cutoffs.cuts(person(session="s2"))
    assert not cutoffs.cuts(person(id="s1", session="s3"))


def test_a_raised_version_ends_all_older_tokens_of_one_user() -> None:
    cutoffs = Cutoffs()
    cutoffs.raise_version("ada", 4, until=1000)
    assert cutoffs.cuts(person(version=3))
    assert not cutoffs.cuts(person(version=4))
    assert not cutoffs.cuts(person(version=5))
    assert not cutoffs.cuts(person(id="bob", version=3))
    assert not cutoffs.cuts(person(id="bob", session="ada", version=3))


def test_a_version_never_falls() -> None:
    cutoffs = Cutoffs()
    cutoffs.raise_version("ada", 5, until=1000)
    cutoffs.raise_version("ada", 4, until=1100)
    assert cutoffs.cuts(person(version=4))
    cutoffs.forget(1050)
    assert cutoffs.cuts(person(version=4))


def test_it_is_forgotten_when_no_token_can_live_any_more() -> None:
    cutoffs = Cutoffs()
    cutoffs.end_session("s1", until=1000)
    cutoffs.raise_version("ada", 4, until=1010)
    cutoffs.forget(999.9)
    assert len(cutoffs) == 2
    cutoffs.forget(1000)
    assert len(cutoffs) == 1
    assert cutoffs.cuts(person())
    cutoffs.forget(1010)
    assert len(cutoffs) == 0
    assert not cutoffs.cuts(person())


def test_the_later_end_counts() -> None:
    cutoffs = Cutoffs()
    for until in (1000, 1200, 1100):
        cutoffs.end_session("s1", until=until)
        cutoffs.raise_version("ada", 4, until=until)
    cutoffs.forget(1199)
    assert len(cutoffs) == 2
    cutoffs.forget(1200)
    assert len(cutoffs) == 0


def test_a_feed_that_repeats_itself_costs_no_memory() -> None:
    cutoffs = Cutoffs()
    for _ in range(1000):
        cutoffs.apply(Cut("session", "s1", 0, 1000))
        cutoffs.apply(Cut("user", "ada", 4, 1000))
    assert len(cutoffs) == 2
    assert len(cutoffs._due) == 2


def test_it_tells_its_size_to_who_debugs_at_night() -> None:
    cutoffs = Cutoffs()
    cutoffs.apply(Cut("session", "s1", 0, 1000))
    assert repr(cutoffs) == "<Cutoffs 1 sessions, 0 users>"


CUTS = st.lists(
    st.builds(
        Cut,
        kind=st.sampled_from(["session", "user"]),
        id=st.sampled_from("abc"),
        version=st.integers(0, 4),
        until=st.integers(0, 20).map(float),
    ),
    max_size=12,
)


@given(cuts=CUTS, shuffled=st.randoms(use_true_random=False), now=st.integers(0, 21))
def test_order_and_repetition_change_nothing_and_nothing_is_forgotten_early(
    cuts: list[Cut], shuffled: object, now: int
) -> None:
    tables = [Cutoffs(), Cutoffs()]
    again = cuts + cuts
    shuffled.shuffle(again)  # type: ignore[attr-defined]
    for table, deliveries in zip(tables, (cuts, again), strict=True):
        for cut in deliveries:
            table.apply(cut)
        table.forget(now)
    for session in "abc":
        for version in range(5):
            for user in "abc":
                who = person(user, session, version)
                alive = [cut for cut in cuts if cut.until > now]
                must = any(
                    (cut.kind == "session" and cut.id == session)
                    or (cut.kind == "user" and cut.id == user and version < cut.version)
                    for cut in alive
                )
                verdicts = {table.cuts(who) for table in tables}
                assert len(verdicts) == 1
                assert verdicts == {True} or not must
    remembered = {(cut.kind, cut.id) for cut in cuts if cut.until > now}
    assert all(len(table) == len(remembered) for table in tables)
