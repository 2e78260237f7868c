"""Caddy: `forward_auth` with the same verifier in Python that nginx asks."""

from __future__ import annotations

from benchmarks.peers import verifier
from benchmarks.peers.peer import USER_HEADERS, Peer, Place, found

_CONFIG = """
{{
  admin off
  auto_https off
  log {{
    level ERROR
  }}
}}
http://127.0.0.1:{port} {{
  route {{
    request_header -X-User-*
    forward_auth 127.0.0.1:{helper} {{
      uri /
      copy_headers {names}
    }}
    reverse_proxy 127.0.0.1:{backend} {{
      header_up -Authorization
      transport http {{
        keepalive_idle_conns_per_host 256
      }}
    }}
  }}
}}
"""


def _start(place: Place) -> list[list[str]]:
    place.environ["XDG_DATA_HOME"] = place.environ["XDG_CONFIG_HOME"] = str(place.folder)
    text = _CONFIG.format(
        port=place.port, backend=place.backend, helper=place.helper, names=" ".join(USER_HEADERS)
    )
    file = place.write("Caddyfile", text)
    return [
        verifier.command(place.helper),
        [found("caddy"), "run", "--config", file, "--adapter", "caddyfile"],
    ]


PEER = Peer(
    name="caddy-forward-auth",
    what="Caddy, `forward_auth` to the same verifier",
    start=_start,
    program="caddy",
    install="apt-get install caddy",
)
