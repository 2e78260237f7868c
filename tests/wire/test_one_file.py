"""`gateway run` on a SQLite file: killed in the middle of rotations, two at once, on a disk that is full."""

from __future__ import annotations

import os
import random
import resource
import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException

from tests.support.process import Running, Site

KILLS = int(os.environ.get("GATEWAY_TEST_KILLS", "5"))
ROUNDS = 30
MOST_S = 0.02
"""Between the last answer that is waited for and the kill: longer than a rotation takes."""


def test_killed_in_the_middle_of_rotations_no_session_is_lost_and_no_token_good_twice(site: Site) -> None:
    """The client has the last token it was told, or the one before if the answer was lost."""
    secret = '"${JWT_REFRESH_SECRET}"'
    site.config.write_text(site.config.read_text().replace(secret, f"{secret}, reuse_grace: 1m"))
    site.add("ana@example.com")
    chance = random.Random(seed := random.randrange(2**32))
    token, successors = "", defaultdict[str, set[str]](set)
    lost = 0
    for _ in range(KILLS):
        with site.running() as gateway:
            token = token or gateway.log_in("ana@example.com")["refreshToken"]
            for _ in range(chance.randrange(1, 5)):
                token = _spend(gateway, token, successors)
            killer = threading.Thread(target=_kill, args=(gateway, chance.random() * MOST_S))
            killer.start()
            try:
                while True:
                    token = _spend(gateway, token, successors)
            except (OSError, HTTPException):
                lost += 1
            killer.join()
    with site.running() as gateway:
        before, token = token, _spend(gateway, token, successors)
        assert gateway.refresh(before).json["refreshToken"] == token
        assert {len(each) for each in successors.values()} == {1}, seed
        assert lost == KILLS
        assert gateway.refresh(next(iter(successors))).status == 401
        assert gateway.refresh(token).status == 401  # which was reuse, and ended the session


def _spend(gateway: Running, token: str, successors: dict[str, set[str]]) -> str:
    answer = gateway.refresh(token)
    assert answer.status == 200, answer.body
    successor: str = answer.json["refreshToken"]
    successors[token].add(successor)
    return successor


def _kill(gateway: Running, seconds: float) -> None:
    time.sleep(seconds)
    gateway.process.kill()


def test_two_gateways_on_one_file(site: Site) -> None:
    site.add("ana@example.com")
    with site.running() as one, site.running() as two, ThreadPoolExecutor(4) as tabs:
        ana, gone = one.log_in("ana@example.com"), two.log_in("ana@example.com")
        token = ana["refreshToken"]
        for _ in range(ROUNDS):
            answers = list(tabs.map(lambda gateway: gateway.refresh(token), (one, two) * 2))  # noqa: B023
            assert {answer.status for answer in answers} == {200}
            [token] = {answer.json["refreshToken"] for answer in answers}
        out = two.request("POST", "/auth/logout", json_body={"refreshToken": gone["refreshToken"]})
        assert out.status == 204
        # The file is looked at every second; each look is a request of its own.
        looks = (one.request("GET", "/slow?seconds=0.1", token=gone["accessToken"]) for _ in range(100))
        assert 401 in (look.status for look in looks)
        assert one.request("GET", "/orders", token=ana["accessToken"]).status == 200


def test_a_full_disk_closes_auth_until_there_is_room_again(site: Site) -> None:
    site.add("ana@example.com")
    with site.running() as gateway:
        ana = gateway.log_in("ana@example.com")
        room = resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE, (0, room[1]))
        for _ in range(3):
            refused = gateway.refresh(ana["refreshToken"])
            assert (refused.status, refused.json["code"]) == (503, "unavailable")
        assert gateway.request("GET", "/orders", token=ana["accessToken"]).status == 200
        assert gateway.request("GET", "/auth/me", token=ana["accessToken"]).status == 200
        resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE, room)
        assert gateway.refresh(ana["refreshToken"]).status == 200
