"""docker-compose.yml: what runs, what it may, what it waits for, and that its secrets have no default."""

import hashlib
import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from reward_service.config import Config, parse_config
from reward_service.demo import FOLDER
from tests.deploy.reading import DEPLOY, ROOT, SECRETS, compose, installed, services

REPLICAS = {"cpu": ("cpu-1", "cpu-2"), "gpu": ("gpu-1", "gpu-2")}
EVERYTHING = sorted(services())


def config(profile: str, folder: Path) -> Config:
    """The configuration of a profile, with its paths as they are in the container."""
    text = (DEPLOY / f"{profile}.toml").read_text(encoding="utf-8")
    (folder / "reward-model").mkdir(exist_ok=True)
    text = text.replace("/opt/demo-models", str(FOLDER / "models")).replace("/models/reward", f"{folder}/reward")
    environment = {**SECRETS, **services()[REPLICAS[profile][0]]["environment"]}
    return parse_config(tomllib.loads(text), {name: str(value) for name, value in environment.items()})


@pytest.mark.parametrize("profile", REPLICAS)
def test_a_profile_has_two_replicas_and_all_else_runs_in_both(profile: str) -> None:
    of_profile = {name for name, one in services().items() if profile in one.get("profiles", [profile])}
    assert of_profile == {*REPLICAS[profile], "balancer", "redis", "prometheus", "grafana"}
    aliases = [services()[name]["networks"]["inside"]["aliases"] for name in REPLICAS[profile]]
    assert aliases == [["replica-1"], ["replica-2"]]


@pytest.mark.parametrize("name", EVERYTHING)
def test_every_service_is_bounded_hardened_and_starts_again(name: str) -> None:
    service = services()[name]
    assert service["restart"] == "unless-stopped"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["deploy"]["resources"]["limits"]["memory"]
    assert "privileged" not in service
    assert not any("docker.sock" in str(volume) for volume in service.get("volumes", []))
    assert "healthcheck" in service or "build" in service, "the image of the service brings its own"


@pytest.mark.parametrize("name", EVERYTHING)
def test_every_mounted_file_is_there(name: str) -> None:
    for volume in services()[name].get("volumes", []):
        source, target, *_ = volume.split(":")
        assert target.startswith("/")
        if source == "./models":
            continue
        assert source in compose()["volumes"] or (ROOT / source).exists(), volume


def test_images_are_plain_names_with_a_version() -> None:
    images = [one["image"] for one in services().values() if "build" not in one]
    assert all(re.fullmatch(r"([a-z]+/)?[a-z]+:v?\d+\.\d+(\.\d+)?(-alpine)?", image) for image in images), images


def test_only_the_balancer_and_the_dashboards_have_ports_and_these_on_this_machine() -> None:
    ports = {name: one["ports"] for name, one in services().items() if "ports" in one}
    assert ports == {
        "balancer": ["127.0.0.1:8080:8080"],
        "prometheus": ["127.0.0.1:9090:9090"],
        "grafana": ["127.0.0.1:3000:3000"],
    }
    assert compose()["networks"]["store"] == {"internal": True}
    assert services()["redis"]["networks"] == ["store"]


def test_secrets_have_no_default_and_stand_in_no_file_of_the_tree() -> None:
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    for name in SECRETS:
        assert re.search(rf"\$\{{{name}:\?[^}}]+\}}", text), name
        assert not re.search(rf"\$\{{{name}(:-|\}})", text), name
    for name, secret in compose()["secrets"].items():
        assert secret == {"file": f"./deploy/secrets/{name}"}
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert {".env", "/deploy/secrets/"} <= set(ignored)


@pytest.mark.parametrize("profile", REPLICAS)
def test_the_configuration_of_a_profile_is_valid_and_guarded(profile: str, tmp_path: Path) -> None:
    parsed = config(profile, tmp_path)
    assert (parsed.server.host, parsed.server.port) == ("0.0.0.0", 8000)
    assert parsed.store.url == "redis://:redis-password@redis:6379/0"
    assert parsed.telemetry.log_format == "json"
    scopes = {key.name: (key.sha256[0], list(key.scopes)) for key in parsed.api_keys}
    assert scopes == {
        "trainer": ("1", ["score", "baselines"]),
        "operator": ("2", ["admin"]),
        "prometheus": ("3", ["metrics"]),
    }


@pytest.mark.parametrize("profile", REPLICAS)
def test_a_replica_has_the_time_to_finish_what_it_accepted(profile: str, tmp_path: Path) -> None:
    limit = config(profile, tmp_path).limits.request_timeout_s
    balancer = (DEPLOY / "haproxy.cfg").read_text(encoding="utf-8")
    waits = dict(re.findall(r"timeout (client|server) (\d+)s", balancer))
    assert {name: int(seconds) > limit for name, seconds in waits.items()} == {"client": True, "server": True}
    for name in REPLICAS[profile]:
        assert int(services()[name]["stop_grace_period"].removesuffix("s")) > limit


def test_redis_keeps_what_it_is_given() -> None:
    settings = dict(line.split(" ", 1) for line in (DEPLOY / "redis.conf").read_text().splitlines() if line[0] != "#")
    assert (settings["appendonly"], settings["maxmemory-policy"]) == ("yes", "volatile-lru")
    assert services()["redis"]["deploy"]["resources"]["limits"]["memory"] == "3g"
    assert settings["maxmemory"] == "2gb"


def test_secrets_are_made_once_and_fit_together(tmp_path: Path) -> None:
    (tmp_path / "deploy").mkdir()
    script = shutil.copy(DEPLOY / "make-secrets.sh", tmp_path / "deploy")
    first = subprocess.run(["sh", script], capture_output=True, text=True, timeout=60, check=True)
    made = dict(line.split("=", 1) for line in (tmp_path / ".env").read_text().splitlines() if line[0] != "#")
    files = {path.name: path.read_text() for path in (tmp_path / "deploy/secrets").iterdir()}
    keys = {"TRAINER": made["TRAINER_KEY"], "OPERATOR": made["OPERATOR_KEY"], "METRICS": files["metrics_key"]}
    for name, key in keys.items():
        assert made[f"{name}_KEY_SHA256"] == hashlib.sha256(key.encode()).hexdigest()
        assert re.fullmatch("[0-9a-f]{48}", key)
    assert made["REDIS_PASSWORD"] == files["redis_password"]
    assert len({*keys.values(), *files.values()}) == 5
    assert oct((tmp_path / ".env").stat().st_mode)[-3:] == "600"
    assert not any(secret in first.stdout for secret in (*keys.values(), *files.values()))
    again = subprocess.run(["sh", script], capture_output=True, text=True, timeout=60, check=False)
    assert (again.returncode, "nothing was changed" in again.stderr) == (1, True)


@pytest.mark.parametrize("profile", REPLICAS)
def test_compose_itself_resolves_the_file(profile: str, tmp_path: Path) -> None:
    environment = tmp_path / "env"
    environment.write_text("".join(f"{name}={value}\n" for name, value in SECRETS.items()))
    line = [
        installed("docker-compose"),
        "--env-file",
        environment,
        "-f",
        ROOT / "docker-compose.yml",
        "--profile",
        profile,
        "config",
    ]
    done = subprocess.run(
        [*map(str, line), "--format", "json"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    resolved: dict[str, Any] = json.loads(done.stdout)["services"]
    assert resolved.keys() == {*REPLICAS[profile], "balancer", "redis", "prometheus", "grafana"}
    environment.write_text("")
    refused = subprocess.run(list(map(str, line)), capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode != 0
    assert "run deploy/make-secrets.sh first" in refused.stderr
