"""Balancer, Prometheus and Grafana: their own checks where the tools are here, and names that exist in any case."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from reward_service.telemetry import Metrics
from tests.deploy.reading import DEPLOY, compose, dashboard, services

OURS = re.compile(r"\b((?:reward_service|process)_\w+)")
BALANCERS = {"haproxy_backend_active_servers", "haproxy_backend_http_responses_total"}


def known_series() -> set[str]:
    """Every series that a service exports, also of metrics without a value yet."""
    names = set()
    for family in text_string_to_metric_families(Metrics().exposition().decode()):
        names.add(f"{family.name}_total" if family.type == "counter" else family.name)
        if family.type == "histogram":
            names |= {f"{family.name}_{part}" for part in ("bucket", "count", "sum")}
    return names - {f"reward_service_{name}_sum" for name in ("raw", "transformed", "reward")}


def queries() -> Iterator[tuple[str, str]]:
    """Where a query stands, and the query."""
    for panel in dashboard()["panels"]:
        yield from ((panel["title"], target["expr"]) for target in panel.get("targets", []))
    for variable in dashboard()["templating"]["list"]:
        yield variable["name"], variable["query"]["query"]
    for group in alerts()["groups"]:
        yield from ((rule["alert"], rule["expr"]) for rule in group["rules"])


def alerts() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text("utf-8"))
    return document


@pytest.mark.parametrize(("place", "query"), list(queries()))
def test_every_query_asks_for_what_is_exported(place: str, query: str) -> None:
    found = set(OURS.findall(query))
    assert found <= known_series(), place
    assert set(re.findall(r"\bhaproxy_\w+", query)) <= BALANCERS, place
    assert found or "haproxy_" in query or "up{" in query, place


def test_every_metric_of_the_service_is_on_the_dashboard_or_in_an_alert() -> None:
    asked = {name for _, query in queries() for name in OURS.findall(query)}
    unseen = {
        family.name
        for family in text_string_to_metric_families(Metrics().exposition().decode())
        if family.name.startswith("reward_service_") and not any(name.startswith(family.name) for name in asked)
    }
    assert {name for name in unseen if not name.endswith("_created")} == set()


def test_panels_do_not_overlap_and_say_what_they_show() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + i, place["y"] + j) for i in range(place["w"]) for j in range(place["h"])}
        assert not taken & cells, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
        assert panel["type"] == "row" or panel["description"].endswith("."), panel["title"]
    assert len({panel["id"] for panel in dashboard()["panels"]}) == len(dashboard()["panels"])


def test_grafana_finds_its_data_source_and_its_dashboard() -> None:
    source = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text("utf-8"))
    provider = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/reward-service.yml").read_text("utf-8"))
    named = source["datasources"][0]
    assert named["url"] == "http://prometheus:9090"
    uids = {panel["datasource"]["uid"] for panel in dashboard()["panels"] if "datasource" in panel}
    assert uids == {named["uid"]}
    mounts = {volume.split(":")[1]: volume.split(":")[0] for volume in services()["grafana"]["volumes"]}
    folder = mounts[provider["providers"][0]["options"]["path"]]
    assert (DEPLOY.parent / folder / "reward-service.json").is_file()


def test_prometheus_asks_each_replica_with_the_key_that_may_do_nothing_else() -> None:
    document = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text("utf-8"))
    replicas, balancer = document["scrape_configs"]
    assert replicas["static_configs"][0]["targets"] == ["replica-1:8000", "replica-2:8000"]
    assert balancer["static_configs"][0]["targets"] == ["balancer:8404"]
    assert replicas["authorization"]["credentials_file"] == "/run/secrets/metrics_key"
    assert services()["prometheus"]["secrets"] == ["metrics_key"]
    assert "metrics_key" in compose()["secrets"]


def test_the_balancer_knows_the_replicas_and_repeats_only_what_was_never_sent() -> None:
    text = (DEPLOY / "haproxy.cfg").read_text("utf-8")
    assert dict(re.findall(r"presetenv (REPLICA_\d) (\S+)", text)) == {
        "REPLICA_1": "replica-1:8000",
        "REPLICA_2": "replica-2:8000",
    }
    assert re.findall(r"retry-on (.*)", text) == ["conn-failure"]
    assert "balance leastconn" in text
    assert "uri /health" in text
    assert "on-marked-down shutdown-sessions" not in text
    assert "%HPO" in text
    assert not re.search(r"log-format .*%(HU|r|HQ)\b", text), "a query may hold a prompt"


def test_haproxy_takes_the_file() -> None:
    tool = shutil.which("haproxy")
    if tool is None:
        pytest.skip("haproxy is not installed")
    line = [tool, "-c", "-V", "-f", str(DEPLOY / "haproxy.cfg")]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    warnings = [line for line in done.stderr.splitlines() if "[WARNING]" in line]
    assert [line for line in warnings if "could not resolve address 'replica-" not in line] == []


ALERTED = """
rule_files: [alerts.yml]
evaluation_interval: 15s
tests:
  - interval: 15s
    input_series:
      - {series: 'reward_service_store_up{instance="writes-refused"}', values: "0 1x3 0 1x3 0 1x3 0 1x3 0 1x60"}
      - {series: 'reward_service_store_errors_total{instance="writes-refused",operation="update"}', values: "0+1x80"}
      - {series: 'reward_service_store_errors_total{instance="one-blip",operation="update"}', values: "0x8 9x80"}
    alert_rule_test:
      - {eval_time: 9m, alertname: StoreFailing, exp_alerts: []}
      - eval_time: 12m
        alertname: StoreFailing
        exp_alerts:
          - exp_labels: {instance: writes-refused, severity: critical}
            exp_annotations:
              summary: "calls of writes-refused to the store keep failing: a full store reads and refuses to write"
      - {eval_time: 12m, alertname: StoreDown, exp_alerts: []}
"""


def test_a_store_that_reads_and_refuses_to_write_is_told_of_and_a_blip_is_not(tmp_path: Path) -> None:
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("promtool is not installed")
    shutil.copy(DEPLOY / "prometheus/alerts.yml", tmp_path)
    (tmp_path / "alerted.yml").write_text(ALERTED)
    line = [tool, "test", "rules", str(tmp_path / "alerted.yml")]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_takes_the_configuration_and_the_alerts(tmp_path: Path) -> None:
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("promtool is not installed")
    (tmp_path / "key").write_text("a key")
    text = (DEPLOY / "prometheus/prometheus.yml").read_text("utf-8")
    (tmp_path / "prometheus.yml").write_text(text.replace("/run/secrets/metrics_key", str(tmp_path / "key")))
    shutil.copy(DEPLOY / "prometheus/alerts.yml", tmp_path)
    line = [tool, "check", "config", str(tmp_path / "prometheus.yml")]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{sum(len(group['rules']) for group in alerts()['groups'])} rules found" in done.stdout + done.stderr
