"""Tests against a real vLLM: `make test-vllm` runs them in an environment that has one."""

import importlib.util

collect_ignore_glob = [] if importlib.util.find_spec("vllm") else ["test_*.py"]
