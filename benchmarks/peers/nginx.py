"""nginx, twice: `auth_request` with a verifier in Python, and plain `proxy_pass`, which looks at nothing."""

from __future__ import annotations

from pathlib import Path

from benchmarks.peers import verifier
from benchmarks.peers.peer import USER_HEADERS, Peer, Place, found

FRAME = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr crit; user root;
worker_rlimit_nofile 10000;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 100000000;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
{servers}
}}
"""
"""A whole configuration for one worker."""
_PROXY = """
  client_max_body_size 0; client_body_buffer_size 64k; proxy_request_buffering off;
  proxy_max_temp_file_size 0; proxy_buffer_size 64k; proxy_buffers 8 64k; proxy_busy_buffers_size 128k;
  proxy_http_version 1.1; proxy_set_header Connection "";
  upstream backend {{ server 127.0.0.1:{backend}; keepalive 256; }}
  upstream verifier {{ server 127.0.0.1:{helper}; keepalive 256; }}
  server {{ listen 127.0.0.1:{port}; {locations} }}
"""
_ASKING = """
    location = /_verify {
      internal; proxy_pass http://verifier/; proxy_pass_request_body off;
      proxy_set_header Content-Length ""; proxy_set_header Connection "";
      proxy_set_header X-Forwarded-Uri $request_uri;
    }
    location / {
      auth_request /_verify; %s
      proxy_set_header Authorization ""; proxy_set_header Connection ""; proxy_pass http://backend;
    }
"""


def command(folder: Path, servers: str) -> list[str]:
    """The command line of an nginx with these `server` blocks."""
    file = folder / "nginx.conf"
    file.write_text(FRAME.format(folder=folder, servers=servers))
    return [found("nginx"), "-p", str(folder), "-c", str(file)]


def _asking(place: Place) -> list[list[str]]:
    lines = ""
    for name in USER_HEADERS:
        variable = name.lower().replace("-", "_")
        lines += f"auth_request_set ${variable} $upstream_http_{variable}; "
        lines += f"proxy_set_header {name} ${variable}; "
    return [verifier.command(place.helper), _command(place, _ASKING % lines)]


def _passing(place: Place) -> list[list[str]]:
    return [_command(place, "location / { proxy_pass http://backend; }")]


def _command(place: Place, locations: str) -> list[str]:
    ports = {"port": place.port, "backend": place.backend, "helper": place.helper}
    return command(place.folder, _PROXY.format(**ports, locations=locations))


AUTH_REQUEST = Peer(
    name="nginx-auth-request",
    what="nginx, `auth_request` to a verifier in Python (ASGI, remembers verified tokens)",
    start=_asking,
    program="nginx",
    install="apt-get install nginx-light",
)
PROXY_PASS = Peer(
    name="nginx-proxy-pass",
    what="nginx, `proxy_pass` alone: no token, no rules",
    start=_passing,
    program="nginx",
    install="apt-get install nginx-light",
    judges=False,
)
