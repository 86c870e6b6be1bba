"""A shop on each store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentguard.slos import Slo
from tests.enforcement.shop import Shop
from tests.support import World

Opens = Callable[..., Shop]


@pytest.fixture(name="shop")
def open_shop(tmp_path: Path) -> Iterator[Opens]:
    """Open a shop on an embedded store, under service levels; it is closed afterwards."""
    yield from _shops(tmp_path, f"sqlite:///{tmp_path}/shop.db")


@pytest.fixture(name="any_shop", params=["memory", "sqlite", "postgres"])
def open_any_shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opens]:
    """Open a shop on every store."""
    urls = {"memory": "memory://", "sqlite": f"sqlite:///{tmp_path}/shop.db"}
    url = urls.get(request.param) or request.getfixturevalue("postgres_url")
    yield from _shops(tmp_path, url)


def _shops(folder: Path, url: str) -> Iterator[Opens]:
    shops: list[Shop] = []

    def opened(*slos: Slo, **settings: Any) -> Shop:
        shops.append(Shop(World(folder / "world.txt"), url, *slos, **settings))
        return shops[-1]

    yield opened
    for shop in shops:
        shop.guard.close()
