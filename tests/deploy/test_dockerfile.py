"""The image: what it is made of, who it runs as, and how it ends."""

import fnmatch
import json
import re
import subprocess

from reward_service.cli.main import app
from tests.deploy.reading import ROOT, dockerfile, installed, stages


def test_base_images_are_plain_names_with_a_version() -> None:
    images = [rest.split(" AS ")[0] for keyword, rest in dockerfile() if keyword == "FROM"]
    bases = [image for image in images if image not in stages() and image != "${VARIANT}"]
    assert bases == ["python:${PYTHON}-slim-bookworm"] * 2
    assert ("ARG", "PYTHON=3.11") in dockerfile()


def test_the_variant_chooses_a_stage_and_cuda_is_the_default() -> None:
    before, found = stages()["before"], stages()
    assert ("ARG", "VARIANT=cuda") in before
    assert found[""] == [("FROM", "${VARIANT}")]
    assert {"cpu", "cuda"} <= found.keys()
    assert {found[variant][0][1] for variant in ("cpu", "cuda")} == {"base AS cpu", "base AS cuda"}
    assert ("ARG", 'TORCH_INDEX=""') in found["build"]


def test_the_last_stage_has_no_build_tools_but_the_compiler_that_the_engine_uses() -> None:
    runs = [rest for keyword, rest in stages()["base"] if keyword == "RUN"]
    assert re.findall(r"--no-install-recommends (.*?) +&&", " ".join(runs)) == ["g++"]
    assert not any("pip" in run for run in runs)
    assert "rm -rf /var/lib/apt/lists/*" in runs[0]


def test_it_runs_as_a_user_with_a_number_that_owns_only_its_caches() -> None:
    base = stages()["base"]
    assert ("USER", "10001:10001") in base
    order = [keyword for keyword, _ in base]
    assert order.index("USER") > max(i for i, keyword in enumerate(order) if keyword in ("RUN", "COPY"))
    caches = dict(re.findall(r"(\w+)=(/var/cache/\S+)", dict(base)["ENV"]))
    assert caches.keys() == {"XDG_CACHE_HOME", "HF_HOME", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"}
    assert all(path.startswith("/var/cache/reward-service") for path in caches.values())


def test_the_service_is_process_one_and_ends_on_sigterm() -> None:
    base = dict(stages()["base"])
    command = [*json.loads(base["ENTRYPOINT"]), *json.loads(base["CMD"])]
    assert command == ["reward-service", "serve", "--config", "/etc/reward-service/config.toml"]
    assert base["STOPSIGNAL"] == "SIGTERM"
    assert "serve" in {one.callback.__name__ for one in app.registered_commands if one.callback}
    assert base["EXPOSE"] == "8000"


def test_the_health_check_asks_the_one_route_that_needs_no_key() -> None:
    check = dict(stages()["base"])["HEALTHCHECK"]
    command = json.loads(check.partition(" CMD ")[2])
    assert command[0] == "python"
    assert "http://127.0.0.1:8000/health" in command[2]
    compile(command[2], "healthcheck", "exec")


def test_all_that_is_copied_is_there_and_nothing_else_is_sent_to_the_builder() -> None:
    kept = [
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    ]
    sources = [rest.split()[:-1] for keyword, rest in dockerfile() if keyword == "COPY" and "--from" not in rest]
    for source in (name for names in sources for name in names):
        assert (ROOT / source).exists(), source
        assert any(fnmatch.fnmatch(source, f"{name}*") for name in kept), source
    assert (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()[0] == "*"


def test_packages_come_in_the_versions_of_the_constraints() -> None:
    build = stages()["build"]
    assert "PIP_CONSTRAINT=/build/constraints.txt" in dict(build)["ENV"]
    runs = " ".join(rest for keyword, rest in build if keyword == "RUN")
    assert re.findall(r"pip install (\S+)", runs) == ["torch", '".[${EXTRAS}]"', "--no-deps"]


def test_no_secret_and_no_host_stands_in_the_file() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    named = set(re.findall(r"https?://([^/:'\"\s)]+)", text))
    assert named == {"127.0.0.1"}
    assert not re.search(r"(?i)(password|secret|token|api_key)\s*=", text)


def test_hadolint_has_no_complaint() -> None:
    tool = installed("hadolint")
    done = subprocess.run(
        [tool, "--no-color", str(ROOT / "Dockerfile")], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.returncode) == ("", 0), done.stdout
