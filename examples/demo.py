"""`make run`: a backend without authentication, the gateway in front of it, and two people who may log in.

Whatever is missing is made: configuration, secrets, database, accounts. Then both servers run
until Ctrl-C. The next start finds everything there. Nothing here is special: these are the
commands that an operator types, in the same order.

    GATEWAY_LISTEN=127.0.0.1:8081 make run      another port, likewise
    GATEWAY_OPS_LISTEN, GATEWAY_UPSTREAM        for the other two
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
GATEWAY = [sys.executable, "-m", "gateway"]
BACKEND = [sys.executable, str(ROOT / "examples" / "upstream" / "app.py")]
LISTING = ("users", "list", "--query", "@example.com", "--format", "json")
LISTEN = os.environ.get("GATEWAY_LISTEN") or "127.0.0.1:8080"
OPS_LISTEN = os.environ.get("GATEWAY_OPS_LISTEN") or "127.0.0.1:9090"
UPSTREAM = (os.environ.get("GATEWAY_UPSTREAM") or "http://127.0.0.1:9000").removeprefix("http://")
ADMIN, USER = "admin@example.com", "user@example.com"
START_TIMEOUT = 20.0
"""Seconds until a server that does not answer counts as failed."""
STOP_TIMEOUT = 40.0
"""Seconds for a clean end; the gateway lets requests in flight finish for up to 30."""


def main() -> None:
    os.chdir(ROOT)
    signal.signal(signal.SIGTERM, stop_like_ctrl_c)
    for where, variable in (
        (LISTEN, "GATEWAY_LISTEN"), (OPS_LISTEN, "GATEWAY_OPS_LISTEN"), (UPSTREAM, "GATEWAY_UPSTREAM")
    ):  # fmt: skip
        refuse_taken_port(where, variable)
    if not (Path("gateway.yaml").exists() and Path(".env").exists()):
        gateway("init")
    host, _, port = UPSTREAM.rpartition(":")
    with (
        contextlib.suppress(KeyboardInterrupt),
        server(*BACKEND, "--host", host, "--port", port) as backend,
        server(*GATEWAY, "run") as front,
    ):
        listing = start(*LISTING) if Path("gateway.db").exists() else None  # meanwhile
        wait_until_ready(front)
        print(welcome(make_accounts(present(listing))), flush=True)
        wait_for_either(backend, front)


def refuse_taken_port(where: str, variable: str) -> None:
    host, _, port = where.rpartition(":")
    if not port.isdigit():
        sys.exit(f"{variable} must be host:port for the demo, not {where}")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError as error:
            other = f"{'http://' if variable == 'GATEWAY_UPSTREAM' else ''}{host}:{int(port) + 1}"
            sys.exit(
                f"Can't listen on {where}: {(error.strerror or str(error)).lower()}. "
                f"Stop what listens there, or choose another port: {variable}={other} make run"
            )


@contextlib.contextmanager
def server(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    """Runs while the body does. In a session of its own: Ctrl-C reaches us alone, and we stop it in order."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        yield process
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):  # too slow, or a second Ctrl-C
        process.kill()
        process.wait()


def wait_until_ready(front: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        if front.poll() is not None:
            sys.exit("The gateway did not start; the lines above say why.")
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection(OPS_LISTEN, timeout=2)
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return
        time.sleep(0.02)
    sys.exit(f"The gateway is not ready after {START_TIMEOUT:.0f} seconds; the lines above may say why.")


def present(listing: subprocess.Popen[str] | None) -> set[str]:
    """The e-mails of everyone who has an account."""
    told = listing.communicate()[0] if listing is not None else ""
    if listing is None or listing.returncode:  # a new database, or one that had to be upgraded first
        told = gateway(*LISTING)
    return {user["email"] for user in json.loads(told)["items"]}


def make_accounts(present: set[str]) -> dict[str, str]:
    """Make the two people if they are not there. Their new passwords, by e-mail; only hashes are stored."""
    made = {}
    for email, options in ((ADMIN, ["--admin"]), (USER, [])):
        if email not in present:
            made[email] = secrets.token_urlsafe(12)
            gateway("users", "add", email, *options, "--password-stdin", typed=made[email])
    return made


def start(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen([*GATEWAY, *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def gateway(*words: str, typed: str = "") -> str:
    """What a command of the gateway prints. If it fails, its own words are the reason."""
    done = subprocess.run([*GATEWAY, *words], input=typed, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr or done.stdout)
    return done.stdout


def welcome(made: dict[str, str]) -> str:
    return f"""
The gateway listens on http://{LISTEN} in front of http://{UPSTREAM}. Ctrl-C stops both.

{logins(made)}

Paste this into another terminal:

{curl_lines(made)}
"""


def logins(made: dict[str, str]) -> str:
    lines = ["Who can log in:"]
    for email in (ADMIN, USER):
        known = "(made earlier; its password was shown then)"
        lines.append(f"  {email:<18} {made.get(email, known)}")
    if len(made) == 2:
        return "\n".join([*lines, "These passwords are shown now and never again."])
    forgotten = f".venv/bin/gateway users set {USER} --password"
    return "\n".join([*lines, f"Forgotten? In another terminal: {forgotten}"])


def curl_lines(made: dict[str, str]) -> str:
    url = f"http://{LISTEN}"
    token = """| sed 's/.*"accessToken": *"\\([^"]*\\)".*/\\1/'"""

    def log_in(variable: str, email: str) -> str:
        body = f'{{"email": "{email}", "password": "{made.get(email, "PASSWORD")}"}}'
        return (
            f"{variable}=$(curl -s {url}/auth/login -H 'Content-Type: application/json' \\\n"
            f"  -d '{body}' {token})"
        )

    def status(path: str, variable: str = "") -> str:
        bearer = f' -H "Authorization: Bearer ${variable}"' if variable else ""
        return f"curl -s -o /dev/null -w '%{{http_code}}\\n' {url}{path}{bearer}"

    return f"""\
# log in; keep the access token
{log_in("TOKEN", USER)}

# the backend is told who asks: look for X-User-Id, X-User-Email, X-User-Admin, X-User-Roles
curl -s {url}/hello -H "Authorization: Bearer $TOKEN"

# an admin-only path: 401 for nobody, 403 for a user, 200 for an admin
{log_in("ADMIN", ADMIN)}
{status("/admin/users")}
{status("/admin/users", "TOKEN")}
{status("/admin/users", "ADMIN")}"""


def wait_for_either(*processes: subprocess.Popen[bytes]) -> NoReturn:
    """Until Ctrl-C, or until a server ends by itself, which none should."""
    while all(process.poll() is None for process in processes):
        time.sleep(0.2)
    sys.exit("A server has ended; the lines above may say why.")


def stop_like_ctrl_c(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
