"""Three gateways on one PostgreSQL and one Redis, as examples/replicas has them: real processes and nginx."""

from __future__ import annotations

import itertools
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.databases import shared_postgres
from tests.support.life import soon
from tests.support.process import PASSWORD, PATIENCE, Answer, Running, Site, free_port
from tests.support.redis import shared_redis

EXAMPLE = Path(__file__).parents[2] / "examples" / "replicas"
REPLICAS = 3
ROUNDS = 40
Add = Callable[[str], None]
PROMISE_S = 2.0
"""Within which a logout is felt everywhere."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, backend: int) -> Iterator[Site]:
    """The example's own file, with cheap passwords and limits that tests don't meet by the way."""
    postgres = shared_postgres()
    database = postgres.migrated()
    with shared_redis() as redis:
        site = Site(tmp_path_factory.mktemp("replicas"), backend=backend, database=database)
        settings = yaml.safe_load((EXAMPLE / "gateway.yaml").read_text())
        settings["accounts"]["bcrypt_cost"] = 4
        settings["rate_limits"] |= {"login": {"per_address": "1000/minute"}}
        settings["rate_limits"] |= {"refresh": {"per_address": "100000/minute"}}
        site.config.write_text(yaml.safe_dump(settings))
        site.environ |= {
            "DATABASE_URL": database,
            "REDIS_URL": redis,
            "UPSTREAM_URL": f"http://127.0.0.1:{backend}",
            "GATEWAY_LISTEN": "127.0.0.1:0",
            "GATEWAY_OPS_LISTEN": "127.0.0.1:0",
            "FRONT_PROXY": "127.0.0.1",
        }
        yield site
    postgres.drop(database)
    postgres.close()


@pytest.fixture(scope="module")
def replicas(site: Site) -> Iterator[list[Running]]:
    with ExitStack() as stack:
        yield [stack.enter_context(site.running()) for _ in range(REPLICAS)]


@pytest.fixture(scope="module")
def add(site: Site, replicas: list[Running]) -> Add:
    """Makes an account; a process of its own for each would take longer than all the rest."""
    site.add("root@example.com", "--admin")
    root = replicas[0].log_in("root@example.com")["accessToken"]

    def add(email: str) -> None:
        body = {"email": email, "password": PASSWORD}
        assert replicas[1].request("POST", "/auth/users", token=root, json_body=body).status == 201

    return add


def everywhere(replicas: list[Running], token: str) -> list[int]:
    return [replica.request("GET", "/orders", token=token).status for replica in replicas]


def within_the_promise(true: Callable[[], bool]) -> float:
    """How long it took."""
    begun = time.monotonic()
    while not true():
        assert time.monotonic() - begun < PROMISE_S
    return time.monotonic() - begun


def test_who_logs_in_at_one_is_logged_in_at_all(add: Add, replicas: list[Running]) -> None:
    add("ana@example.com")
    ana = replicas[0].log_in("ana@example.com")
    for replica in itertools.islice(itertools.cycle(replicas), 6):
        assert everywhere(replicas, ana["accessToken"]) == [200] * REPLICAS
        answer = replica.refresh(ana["refreshToken"])
        assert answer.status == 200
        ana |= answer.json


def test_tabs_that_refresh_at_three_replicas_at_once_have_one_successor(
    add: Add, replicas: list[Running]
) -> None:
    add("bea@example.com")
    token = replicas[0].log_in("bea@example.com")["refreshToken"]
    with ThreadPoolExecutor(2 * REPLICAS) as tabs:
        for _ in range(ROUNDS):
            answers = list(tabs.map(lambda replica: replica.refresh(token), replicas * 2))  # noqa: B023
            assert {answer.status for answer in answers} == {200}
            [token] = {answer.json["refreshToken"] for answer in answers}


def test_a_logout_anywhere_is_felt_everywhere_within_two_seconds(add: Add, replicas: list[Running]) -> None:
    add("cem@example.com")
    for replica in replicas:
        cem, stays = replica.log_in("cem@example.com"), replica.log_in("cem@example.com")
        assert everywhere(replicas, cem["accessToken"]) == [200] * REPLICAS
        out = replica.request("POST", "/auth/logout", json_body={"refreshToken": cem["refreshToken"]})
        assert out.status == 204
        within_the_promise(lambda: everywhere(replicas, cem["accessToken"]) == [401] * REPLICAS)  # noqa: B023
        assert everywhere(replicas, stays["accessToken"]) == [200] * REPLICAS


def test_so_is_what_the_command_line_does(site: Site, add: Add, replicas: list[Running]) -> None:
    add("dan@example.com")
    dan = replicas[0].log_in("dan@example.com")
    assert site.command("users", "disable", "dan@example.com").returncode == 0
    within_the_promise(lambda: everywhere(replicas, dan["accessToken"]) == [401] * REPLICAS)
    assert {replica.refresh(dan["refreshToken"]).status for replica in replicas} == {401}


def test_an_api_token_revoked_anywhere_is_dead_everywhere(add: Add, replicas: list[Running]) -> None:
    add("fay@example.com")
    fay = replicas[0].log_in("fay@example.com")["accessToken"]
    for replica in replicas:
        made = replica.request("POST", "/auth/tokens", token=fay, json_body={"name": "x"}).json
        assert everywhere(replicas, made["token"]) == [200] * REPLICAS
        assert replica.request("DELETE", f"/auth/tokens/{made['id']}", token=fay).status == 204
        within_the_promise(lambda: everywhere(replicas, made["token"]) == [401] * REPLICAS)  # noqa: B023


def test_a_stream_ends_on_the_replica_that_has_it(add: Add, replicas: list[Running]) -> None:
    add("eve@example.com")
    eve = replicas[0].log_in("eve@example.com")
    with socket.create_connection(replicas[1].address, PATIENCE) as stream:
        lines = (
            "GET /sse?events=900&every=0.1 HTTP/1.1",
            "Host: a",
            f"Authorization: Bearer {eve['accessToken']}",
        )
        stream.sendall("\r\n".join([*lines, "", ""]).encode())
        assert stream.recv(65536).startswith(b"HTTP/1.1 200")
        replicas[2].request("POST", "/auth/logout", json_body={"refreshToken": eve["refreshToken"]})
        while stream.recv(65536):
            pass


def test_guesses_are_counted_once_for_all(add: Add, replicas: list[Running]) -> None:
    add("hal@example.com")

    def guess(replica: Running) -> int:
        body = {"email": "hal@example.com", "password": "wrong, and long enough"}
        return replica.request("POST", "/auth/login", json_body=body).status

    statuses = [guess(replica) for replica in itertools.islice(itertools.cycle(replicas), 9)]
    assert statuses == [401] * 5 + [429] * 4


class Client:
    """Somebody who refreshes all the time, anywhere, and asks again where no answer came."""

    def __init__(self, replicas: list[Running], number: int) -> None:
        self._replicas = itertools.cycle(replicas[number % REPLICAS :] + replicas[: number % REPLICAS])
        self._tokens: dict[str, Any] = replicas[0].log_in(f"client-{number}@example.com")
        self.lost = self.refreshed = 0

    def run_until(self, over: threading.Event) -> None:
        while not over.is_set():
            answer = self._ask(lambda replica: replica.refresh(self._tokens["refreshToken"]))
            assert answer.status == 200, answer.body
            self._tokens |= answer.json
            access = self._tokens["accessToken"]
            assert self._ask(lambda replica: replica.request("GET", "/orders", token=access)).status == 200  # noqa: B023
            self.refreshed += 1

    def _ask(self, ask: Callable[[Running], Answer]) -> Answer:
        while True:
            try:
                return ask(next(self._replicas))
            except (OSError, HTTPException):
                self.lost += 1


def test_a_replica_killed_under_load_loses_no_session(site: Site, add: Add, replicas: list[Running]) -> None:
    for number in range(6):
        add(f"client-{number}@example.com")
    over = threading.Event()
    with site.running() as doomed, ThreadPoolExecutor(6) as threads:
        clients = [Client([*replicas[:2], doomed], number) for number in range(6)]
        running = [threads.submit(client.run_until, over) for client in clients]
        try:
            for enough in (5, 10):
                while any(client.refreshed < enough for client in clients):
                    assert not any(future.done() for future in running), [f.exception() for f in running]
                    time.sleep(0.01)
                doomed.process.kill()
        finally:
            over.set()
        for future in running:
            future.result(PATIENCE)
    assert sum(client.lost for client in clients) > 0


@contextmanager
def nginx(folder: Path, replicas: list[Running]) -> Iterator[Running]:
    """The example's nginx.conf, with our ports in it; as one more address to send requests to."""
    binary = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if binary is None:
        pytest.skip("nginx is not installed (Debian: nginx-light)")
    port, text = free_port(), (EXAMPLE / "nginx.conf").read_text()
    for number, replica in enumerate(replicas, 1):
        text = text.replace(f"gateway-{number}:8080", "{}:{}".format(*replica.address))
    (folder / "site.conf").write_text(text.replace("listen 8000", f"listen 127.0.0.1:{port}"))
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/pid; error_log {folder}/error.log; events {{}}\n"
        f"http {{ access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;\n"
        f"fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;\n"
        f"include {folder}/site.conf; }}\n"
    )
    command = [binary, "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")]
    tested = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False)
    assert tested.returncode == 0, tested.stderr
    with subprocess.Popen(command) as process:
        try:
            deadline = time.monotonic() + PATIENCE
            while not _listens(port):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            yield Running(None, ("127.0.0.1", port), ("127.0.0.1", port))  # type: ignore[arg-type]
        finally:
            process.terminate()


def served(replica: Running, path: str) -> int:
    return sum(line.get("path", "").startswith(path) for line in replica.lines)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_the_proxy_in_front_spreads_requests_and_passes_over_the_dead(
    site: Site, add: Add, replicas: list[Running], tmp_path: Path
) -> None:
    add("gil@example.com")
    with site.running() as doomed, nginx(tmp_path, [*replicas[:2], doomed]) as front:
        gil = front.log_in("gil@example.com")
        for _ in range(6):
            seen = dict(front.request("GET", "/spread/a%2Fb//c", token=gil["accessToken"]).json["headers"])
            assert seen["X-User-Email"] == "gil@example.com"
            assert seen["X-Forwarded-For"].startswith("127.0.0.1")
            assert seen["X-Forwarded-Host"] == f"127.0.0.1:{front.address[1]}"
        soon(lambda: sum(served(replica, "/spread") for replica in (*replicas, doomed)) == 6)
        assert sum(served(replica, "/spread") > 0 for replica in (*replicas, doomed)) > 1
        doomed.process.kill()
        doomed.process.wait()
        statuses = [front.request("GET", "/orders", token=gil["accessToken"]).status for _ in range(12)]
        assert statuses == [200] * 12
        assert front.refresh(gil["refreshToken"]).status == 200
        assert front.request("GET", "/orders").status == 401


def test_the_compose_file_says_what_the_configuration_asks_for() -> None:
    """There is no Docker here: what can be read of the file is held to the other two."""
    compose = yaml.safe_load((EXAMPLE / "compose.yaml").read_text())
    services = compose["services"]
    gateways = [name for name in services if name.startswith("gateway-")]
    proxied = [name for name in gateways if f"server {name}:8080" in (EXAMPLE / "nginx.conf").read_text()]
    assert len(gateways) == len(proxied) == REPLICAS
    asked = set(_variables((EXAMPLE / "gateway.yaml").read_text()))
    for name in (*gateways, "upgrade"):
        assert asked - {"GATEWAY_OPS_LISTEN"} <= set(services[name]["environment"])
        assert {"inside"} <= set(services[name]["networks"])
    front = services["proxy"]["networks"]["front"]["ipv4_address"]
    assert services["gateway-1"]["environment"]["FRONT_PROXY"] == front
    assert [name for name, service in services.items() if "ports" in service] == ["proxy"]
    for service in services.values():
        for before in service.get("depends_on", {}):
            assert before in services
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert source in compose["volumes"] or (EXAMPLE / source).exists()


def _variables(text: str) -> Iterator[str]:
    for part in text.split("${")[1:]:
        yield part.partition("}")[0].partition(":")[0]
