"""What the composition root does by itself."""

from __future__ import annotations

import asyncio
import gc
import io
from pathlib import Path

import httpx
import pytest
import yaml

from gateway.config.load import load
from gateway.policy.compile import compile_policy
from gateway.proxy.study import Study
from gateway.telemetry.outlet import Outlet, target_of
from gateway.upkeep import end
from tests.policy.rules import TOKENS
from tests.support.house import Clock, open_gateway


@pytest.mark.anyio
async def test_an_asgi_server_s_heads_let_go_of_the_rules_that_a_reload_replaced(tmp_path: Path) -> None:
    written = {
        "tokens": TOKENS,
        "server": {"ops_listen": "off"},
        "accounts": {"database": f"sqlite:///{tmp_path}/gateway.db"},
        "upstream": "http://127.0.0.1:9",
    }
    outlet = Outlet(target_of(io.StringIO()), report=lambda lost: b"")
    async with open_gateway(tmp_path, yaml.safe_dump(written), clock=Clock(), outlet=outlet) as gateway:
        transport = httpx.ASGITransport(gateway.asgi)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway.test") as http:
            assert (await http.get("/orders")).status_code == 401
            former = gateway.gate._rules
            assert [each for each in gc.get_referrers(former) if isinstance(each, Study)]
            (tmp_path / "gateway.yaml").write_text(yaml.safe_dump({**written, "default": "nobody"}))
            loaded = load(tmp_path / "gateway.yaml", environ={})
            assert loaded.config is not None
            policy, _ = compile_policy(loaded.config, loaded.places)
            assert policy is not None
            gateway.reload(loaded.config, policy)
            gc.collect()
            assert not [each for each in gc.get_referrers(former) if isinstance(each, Study)]
            assert (await http.get("/orders")).status_code == 403


@pytest.mark.anyio
async def test_a_loop_whose_library_swallows_a_cancellation_ends_all_the_same() -> None:
    swallowed = 0

    async def deaf_once() -> None:
        nonlocal swallowed
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                if swallowed:
                    raise
                swallowed += 1

    tasks = [asyncio.create_task(deaf_once()), asyncio.create_task(asyncio.sleep(3600))]
    await asyncio.sleep(0)
    await asyncio.wait_for(end(tasks), timeout=30)
    assert swallowed == 1
    assert all(task.done() for task in tasks)
