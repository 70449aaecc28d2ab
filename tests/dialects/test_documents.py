"""docs/dialects.md names what there is."""

from pathlib import Path

import pytest
from fastapi.routing import APIRoute

from reward_service.api.app import TRAINERS
from reward_service.api.dialects.slime import SlimeParameters
from tests.dialects.trainers import TRAINERS as SENDERS

PAGE = (Path(__file__).parents[2] / "docs" / "dialects.md").read_text(encoding="utf-8")
ROUTES = [route for router in TRAINERS for route in router.routes if isinstance(route, APIRoute)]


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.path)
def test_every_route_for_trainers_stands_on_the_page(route: APIRoute) -> None:
    assert f"`{route.path}`" in PAGE


def test_every_parameter_of_the_url_stands_on_the_page() -> None:
    for name in SlimeParameters.model_fields:
        assert f"| `{name}` |" in PAGE


def test_every_reward_field_that_a_trainer_reads_stands_on_the_page() -> None:
    for sender in SENDERS:
        assert f"`{sender.path}`" in PAGE
        assert f'"{sender.required}"' in PAGE
