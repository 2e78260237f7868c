"""Make or renew .venv with this project installed in it: `python3 .ci/setup_venv.py [EXTRA]`.

uv is used if it is there. Otherwise Python's own venv and pip; and because Debian ships a
Python whose venv has no pip (that part is the package python3-venv), pip is then taken from
the system if it has one, else from the package index that pip would use, checked against the
SHA-256 below. Only the standard library, for any Python from 3.11 on.
"""

from __future__ import annotations

import base64
import configparser
import hashlib
import os
import re
import ssl
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
PIP_WHEEL = "pip-26.3-py3-none-any.whl"
PIP_SHA256 = "f3b60b20ffaadd4415ed7957212a38ac63fa4c5fa375bd0f4a797777940fad13"


def main(extras: list[str]) -> None:
    project = str(ROOT) + (f"[{','.join(extras)}]" if extras else "")
    print("Setting up .venv; this takes a moment, and only now.", flush=True)
    try:
        if works("uv", "--version"):
            install_with_uv(project)
        else:
            install_with_pip(project)
    except subprocess.CalledProcessError as error:
        sys.exit(f"Setting up .venv failed: `{error.cmd[0]}` says above why.")


def install_with_uv(project: str) -> None:
    if not is_usable():
        run("uv", "venv", "--quiet", "--clear", "--python", sys.executable, str(VENV))
    run("uv", "pip", "install", "--quiet", "--python", str(PYTHON), "--editable", project)


def install_with_pip(project: str) -> None:
    if not is_usable():
        make_venv()
    run(*pip(), "install", "--quiet", "--disable-pip-version-check", "--editable", project)


def is_usable() -> bool:
    """A .venv that was moved, or whose Python is gone or too old, is made anew."""
    return works(str(PYTHON), "-c", "import sys; sys.exit(sys.version_info < (3, 11))")


def make_venv() -> None:
    try:
        import venv
    except ImportError:
        sys.exit("This Python has no venv module. On Debian: apt-get install python3-venv")
    venv.create(VENV, clear=True, symlinks=True)


def pip() -> list[str]:
    """A pip that installs into .venv: its own, else the system's, else one from the index."""
    own = [str(PYTHON), "-m", "pip"]
    if works(*own, "--version") or works(str(PYTHON), "-m", "ensurepip", "--default-pip"):
        return own
    systems = [sys.executable, "-m", "pip", "--python", str(PYTHON)]
    if works(*systems, "--version"):
        return systems
    fetch_pip()
    return own


def fetch_pip() -> None:
    try:
        wheel = download_pip(index_url())
    except (OSError, ValueError) as error:
        sys.exit(
            f"This Python has no pip, and none could be fetched ({error}).\n"
            "Install one of: uv (https://docs.astral.sh/uv/), or on Debian: apt-get install python3-venv"
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / PIP_WHEEL
        path.write_bytes(wheel)
        # A wheel is a zip file, and Python runs packages out of zip files: pip installs itself.
        run(str(PYTHON), f"{path}/pip", "install", "--quiet", "--no-index", str(path))


def index_url() -> str:
    """The index that pip would ask: its variable, uv's, pip's files, else PyPI."""
    for name in ("PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL"):
        if url := os.environ.get(name):
            return url
    home = Path.home()
    own = os.environ.get("PIP_CONFIG_FILE", os.devnull)
    for place in (own, home / ".config/pip/pip.conf", home / ".pip/pip.conf", "/etc/pip.conf"):
        settings = configparser.RawConfigParser()
        settings.read(place)
        if url := settings.get("global", "index-url", fallback=None):
            return url
    return "https://pypi.org/simple"


def download_pip(index: str) -> bytes:
    """The bytes of PIP_WHEEL; ValueError if the index has another file of that name, or none."""
    page_url = index.rstrip("/") + "/pip/"
    page = get(page_url, accept="text/html").decode()
    link = re.search(rf'href="([^"]*/)?{re.escape(PIP_WHEEL)}(#[^"]*)?"', page)
    if link is None:
        raise ValueError(f"{without_password(page_url)} does not list {PIP_WHEEL}")
    wheel = get(urljoin(page_url, (link[1] or "") + PIP_WHEEL), accept="*/*")
    if hashlib.sha256(wheel).hexdigest() != PIP_SHA256:
        raise ValueError(f"the {PIP_WHEEL} of this index is not the published one")
    return wheel


def get(url: str, *, accept: str) -> bytes:
    request = urllib.request.Request(without_password(url), headers={"Accept": accept})
    parts = urlsplit(url)
    if parts.username:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        request.add_unredirected_header("Authorization", "Basic " + base64.b64encode(login.encode()).decode())
    context = ssl.create_default_context(cafile=os.environ.get("PIP_CERT") or os.environ.get("SSL_CERT_FILE"))
    with urllib.request.urlopen(request, timeout=60, context=context) as response:
        return bytes(response.read())


def without_password(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def works(*command: str) -> bool:
    try:
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    except OSError:
        return False
    return done.returncode == 0


def run(*command: str) -> None:
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main(sys.argv[1:])
