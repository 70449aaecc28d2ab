"""schemathesis over openapi.yaml against the service as anybody would start it, with keys."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.access.configs import key_table
from tests.process import ServiceProcess, demo_toml

ROOT = Path(__file__).parents[2]
KEY = "rs_opens-everything"
TIMEOUT_S = 3000


def cases_passed(folder: Path, *options: str) -> int:
    """How many cases passed; AssertionError with what schemathesis found, and with what the service logged as errors.

    It looks for server errors, statuses, headers and bodies that the document does not know, data that is accepted
    against the document, and operations that forget the key.
    """
    file = demo_toml(folder)
    every = key_table("fuzzer", KEY, ["score", "baselines", "metrics", "admin"])
    file.write_text(file.read_text() + every)
    schemathesis = Path(sys.executable).with_name("schemathesis")
    settings = ["--config-file", str(Path(__file__).with_name("schemathesis.toml"))]
    with ServiceProcess(file) as service:
        done = subprocess.run(
            [schemathesis, *settings, "run", ROOT / "openapi.yaml", "--url", service.url, "--no-color", *options],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            env={**os.environ, "REWARD_SERVICE_API_KEY": KEY},
            cwd=folder,
        )
        assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
        assert "Traceback" not in service.printed
    found = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    assert found, done.stdout[-5_000:]
    assert found[1] == found[2]
    return int(found[2])
