"""HAProxy: `jwt_verify` in process, expiry and the admin rule as http-request rules."""

from __future__ import annotations

import resource

from benchmarks.peers.peer import ADMIN_PREFIX, Peer, Place, found

_CONFIG = """
global
  nbthread 1
  maxconn {connections}
defaults
  mode http
  timeout client 60s
  timeout server 60s
  timeout connect 5s
  timeout tunnel 60s
  http-reuse always
frontend clients
  bind 127.0.0.1:{port}
  http-request set-var(txn.alg) http_auth_bearer,jwt_header_query('$.alg')
  http-request deny deny_status 401 unless {{ var(txn.alg) -m str HS256 }}
  http-request deny deny_status 401 unless {{ http_auth_bearer,jwt_verify(txn.alg,"{secret}") -m int 1 }}
  http-request set-var(txn.exp) http_auth_bearer,jwt_payload_query('$.exp','int')
  http-request set-var(txn.now) date()
  http-request deny deny_status 401 unless {{ var(txn.exp),sub(txn.now) -m int gt 0 }}
  http-request set-var(txn.admin) http_auth_bearer,jwt_payload_query('$.isAdmin')
  http-request deny deny_status 403 if {{ path_beg {admin} }} !{{ var(txn.admin) -m bool }}
  http-request set-header X-User-Id %[http_auth_bearer,jwt_payload_query('$.sub')]
  http-request set-header X-User-Email %[http_auth_bearer,jwt_payload_query('$.email')]
  http-request set-header X-User-Admin %[var(txn.admin),iif(true,false)]
  http-request del-header Authorization
  default_backend app
backend app
  server app 127.0.0.1:{backend}
"""
_MOST_CONNECTIONS = 8000
"""With a quarter of its files in use, HAProxy begins to close idle connections to the backend."""
_FILES_PER_CONNECTION = 3
"""Two sockets each, and room to spare: HAProxy refuses to start with more than its files allow."""


def _start(place: Place) -> list[list[str]]:
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    text = _CONFIG.format(
        port=place.port,
        backend=place.backend,
        secret=place.secret,
        admin=ADMIN_PREFIX,
        connections=min(_MOST_CONNECTIONS, files // _FILES_PER_CONNECTION),
    )
    return [[found("haproxy"), "-db", "-f", place.write("haproxy.cfg", text)]]


PEER = Peer(
    name="haproxy",
    what="HAProxy, `jwt_verify` in process",
    start=_start,
    program="haproxy",
    install="apt-get install haproxy",
)
