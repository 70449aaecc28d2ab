"""What a figure was measured on."""

import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import torch
import transformers


def described() -> dict[str, Any]:
    """Processor, cores, versions and the commit that was measured."""
    return {
        "processor": processor(),
        "cores": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "commit": commit(),
    }


def processor() -> str:
    """The processor's model name, or what the platform says of it."""
    cpuinfo = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.+)", cpuinfo.read_text()) if cpuinfo.exists() else []
    return str(names[0]) if names else platform.machine()


def commit() -> str:
    """The commit that was measured."""
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
