"""Without vLLM the engine says what to install."""

import importlib.util

import pytest

from reward_service.errors import NotReady
from tests.engine.serving import serving
from tests.hosted.conftest import Build


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed here")
async def test_a_model_in_vllm_needs_vllm(folder: Build) -> None:
    with pytest.raises(NotReady, match=r"engine 'vllm' needs vLLM, .*pip install 'reward-service\[server,vllm\]'"):
        async with serving(folder("bos"), engine="vllm"):
            pass
