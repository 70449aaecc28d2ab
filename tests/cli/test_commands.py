"""The command line, as a person types it."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import yaml

from reward_service.demo import MODELS, conversations, references
from tests.process import ServiceProcess, command, demo_toml

ROOT = Path(__file__).parents[2]


def test_check_says_everything_that_is_wrong_and_exits_1(tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text('[server]\nport = -1\n[[models]]\nname = "m"\nsorce = "x"\n')
    done = command("check", "-c", file)
    assert done.returncode == 1
    assert "3 problem(s)" in done.stderr
    for part in ("server.port: -1", "models[0].source: required", "did you mean 'source'?"):
        assert part in done.stderr
    assert "Traceback" not in done.stderr


def test_check_of_a_valid_file_names_models_and_objectives(tmp_path: Path) -> None:
    done = command("check", "-c", demo_toml(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert "valid; models: helpful, harmless; objectives: both" in done.stdout


def test_openapi_prints_the_committed_document() -> None:
    done = command("openapi")
    assert yaml.safe_load(done.stdout) == yaml.safe_load((ROOT / "openapi.yaml").read_text())


def test_demo_once_scores_every_conversation_with_both_models_and_ends() -> None:
    done = command("demo", "--once")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    rows = [line for line in done.stdout.splitlines() if re.match(r"(helpful|useless|harmful|refusing): ", line)]
    assert len(rows) == len(conversations()) >= 24
    for row in rows:
        *helpful, source, raw, baseline, other, transformed, reward = row.split()[-9:]
        assert [helpful[2], other] == ["prompt", "prompt"]
        assert float(reward) == pytest.approx(float(source) + float(transformed), abs=2e-3)
        assert float(raw) != float(baseline)


def test_demo_serves_until_ctrl_c() -> None:
    arguments = [sys.executable, "-m", "reward_service.cli", "demo", "--port", "0"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        url = ""
        for line in process.stdout:
            if found := re.search(r"serving on (http://\S+)", line):
                url = found[1]
                break
        assert httpx.get(f"{url}/ready", timeout=60).json()["status"] == "ready"
        prompt = {"prompt": "How tall is a giraffe?", "response": "About five metres."}
        answer = httpx.post(f"{url}/v1/score", json={"conversations": [prompt]}, timeout=60).json()
        assert [t["baseline_source"] for t in answer["scores"][0]["terms"]] == ["global", "global"]
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert "Traceback" not in process.stderr.read()


def test_a_taken_port_is_told_in_one_line(tmp_path: Path) -> None:
    with ServiceProcess(demo_toml(tmp_path)) as service:
        port = service.url.rsplit(":", 1)[1]
        done = command("demo", "--port", port)
    assert done.returncode == 1
    assert f"127.0.0.1:{port} cannot be bound" in done.stderr


def test_a_model_that_cannot_be_loaded_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    file = tmp_path / "service.toml"
    file.write_text(f'[[models]]\nname = "m"\nsource = "{tmp_path}/empty"\n[store]\nurl = "memory://"\n')
    done = command("serve", "-c", file)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "'m'" in done.stderr


def test_baselines_are_built_from_a_file_and_their_coverage_told(tmp_path: Path) -> None:
    file = tmp_path / "references.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in references()))
    more = tmp_path / "prompts.jsonl"
    more.write_text(file.read_text() + json.dumps({"prompt": "a prompt of its own"}) + "\n")
    with ServiceProcess(demo_toml(tmp_path)) as service:
        built = command("baseline", "build", file, "--policy", "sft", "--url", service.url)
        again = command("baseline", "build", file, "--policy", "sft", "--url", service.url)
        whole = command("baseline", "coverage", file, "--policy", "sft", "--url", service.url)
        lacking = command("baseline", "coverage", more, "--policy", "sft", "--url", service.url)
        enough = command("baseline", "coverage", more, "--policy", "sft", "--url", service.url, "--threshold", "0.8")
    assert [d.returncode for d in (built, again, whole, lacking, enough)] == [0, 0, 0, 1, 0], built.stderr
    for model in MODELS:
        assert (
            f"{model}: 8 prompts, {sum(len(r['responses']) for r in references())} references, 8 prompts changed"
            in built.stdout
        )
        assert f"{model}: 8 of 9 prompts have 8 references or more" in lacking.stdout
    assert "0 prompts changed" in again.stdout
    assert "lacking: line 9: 'a prompt of its own'" in lacking.stdout


def test_baselines_are_built_in_process_and_survive(tmp_path: Path) -> None:
    config = demo_toml(tmp_path)
    file = tmp_path / "rewards.jsonl"
    file.write_text('{"prompt": "p", "rewards": [0, 1, 2, 3, 4, 5, 6, 7], "other": "column"}\n')
    built = command("baseline", "build", file, "--policy", "sft", "--model", "helpful", "-c", config)
    assert built.returncode == 0, built.stderr
    covered = command("baseline", "coverage", file, "--policy", "sft", "--model", "helpful", "-c", config)
    assert "helpful: 1 of 1 prompts" in covered.stdout


def test_a_global_snapshot_is_taken_with_the_build(tmp_path: Path) -> None:
    file = tmp_path / "many.jsonl"
    file.write_text("".join(json.dumps({"prompt": str(i), "rewards": [float(i), 0.0]}) + "\n" for i in range(120)))
    options = ["--policy", "sft", "--model", "helpful", "--global", "-c", str(demo_toml(tmp_path))]
    few = command("baseline", "build", file, *options)
    enough = command("baseline", "build", file, *options, "--min-references", "2")
    assert few.returncode == 1
    assert "100 prompts" in few.stderr
    assert "helpful: global snapshot of 240 references from 120 prompts" in enough.stdout


def test_building_again_from_another_file_and_back_replaces_the_references(tmp_path: Path) -> None:
    files = {}
    for name, reward in (("a", 1.0), ("b", 9.0)):
        files[name] = tmp_path / f"{name}.jsonl"
        rows = [{"prompt": "hi", "rewards": [reward] * 8}]
        rows += [{"prompt": f"other {i}", "rewards": [0.0] * 16} for i in range(20)]
        rows += [{"prompt": [{"role": "user", "content": "hi"}], "rewards": [reward + 2.0] * 8}]
        files[name].write_text("".join(json.dumps(row) + "\n" for row in rows))
    with ServiceProcess(demo_toml(tmp_path)) as service:
        found = []
        for name in ("a", "b", "a"):
            built = command(
                "baseline", "build", files[name], "--policy", "sft", "--model", "helpful", "--url", service.url
            )
            assert built.returncode == 0, built.stderr
            query = {"model": "helpful", "policy": "sft", "prompt": "hi", "method": "mean"}
            found.append(httpx.get(f"{service.url}/v1/baselines", params=query, timeout=60).json())
    assert [(one["count"], one["value"]) for one in found] == [(16, 2.0), (16, 10.0), (16, 2.0)]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"prompt": "p"}', "line 1: give `responses` (or `response`), or `rewards`"),
        ('{"prompt": "p", "responses": "a"}', "line 1.responses: 'a' is not valid"),
        ('{"responses": ["a"]}', "line 1.prompt: required"),
        ("{", "line 1: "),
        ("", "no rows"),
    ],
)
def test_a_bad_line_of_references_is_named(line: str, expected: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text(line)
    done = command("baseline", "build", file, "--policy", "sft", "--url", "http://127.0.0.1:1")
    assert done.returncode == 1
    assert expected in done.stderr


def test_a_service_that_is_not_there_is_told_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "rewards.jsonl"
    file.write_text('{"prompt": "p", "rewards": [1]}\n')
    done = command("baseline", "build", file, "--policy", "sft", "--url", "http://127.0.0.1:1")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "the service cannot be reached" in done.stderr


def test_the_version_is_printed() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", command("--version").stdout)
