"""docs/choosing-rewards.md and the table of advantages say what is: configuration, commands, rules."""

import re
import tomllib
from pathlib import Path

import pytest
import typer

from reward_service.cli.main import app
from reward_service.cli.prompts import Row
from reward_service.config import parse_config
from reward_service.rewards.aggregation import AGGREGATIONS
from reward_service.rewards.groups import RULES
from reward_service.rewards.transforms import TRANSFORMS
from reward_service.schemas.advantages import READ, Advantages

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "choosing-rewards.md").read_text(encoding="utf-8")
API = (DOCS / "api.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return [re.sub(r"(?m)^   ", "", block) for block in re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)]


def test_the_configuration_of_the_page_is_valid_and_its_line_is_one_of_references() -> None:
    (toml,) = blocks("toml")
    assert [one.name for one in parse_config(tomllib.loads(toml), {}).objectives] == ["helpful-and-harmless"]
    (line,) = blocks("json")
    assert Row.model_validate_json(line).responses == ["About five metres.", "Very."]


def test_the_commands_of_the_page_have_the_options_that_it_gives_them() -> None:
    lines = [line.split() for block in blocks("bash") for line in block.splitlines()]
    assert [line[:3] for line in lines] == [["reward-service", "baseline", name] for name in ("build", "coverage")]
    for _, group, name, *words in lines:
        command = typer.main.get_command(app).commands[group].commands[name]  # type: ignore[attr-defined]
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known


def test_every_transform_and_aggregation_that_the_page_names_is_there() -> None:
    (table,) = re.findall(r"\| transform \| aggregate \|\n\|[-|]+\n(.*?)\n\n", PAGE, re.DOTALL)
    cells = [cell for row in table.splitlines() for cell in row.split("|")[2:4]]
    named = {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    assert set(TRANSFORMS) <= named <= {*TRANSFORMS, *AGGREGATIONS}


@pytest.mark.parametrize("name", [*READ["grpo"], "batch_eps", "batch_variance_eps"])
def test_every_rule_stands_in_the_table_with_the_numbers_of_both_trainers(name: str) -> None:
    (row,) = re.findall(rf"^\| `{name}` \|(.*)\|$", API, re.MULTILINE)
    _, trl, verl, readers = (cell.strip().strip("`") for cell in row.split("|"))
    for told, rules in ((trl, RULES["trl"]), (verl, RULES["verl"])):
        there = getattr(rules, name)
        assert (there if isinstance(there, str) else float(there)) == (told if isinstance(there, str) else float(told))
    assert readers.split(", ") == [estimator for estimator, read in READ.items() if name in read]


def test_the_page_knows_every_field_of_the_request() -> None:
    assert {"estimator", "rules", *READ["grpo"], *READ["gdpo"]} == set(Advantages.model_fields)
