"""vLLM in process, for the Python of an environment that has it: token ids in, seconds and raw scores out.

python -m benchmarks.vllm_worker MODEL_FOLDER MAX_NUM_BATCHED_TOKENS
"""

import sys
import time
from typing import Any

from benchmarks.workers import answer_all


def main(folder: str, batched_tokens: int) -> None:
    """Answers `{"ids": [[...], ...]}`; the prefix cache is on, and cold as long as the texts are fresh."""
    from vllm.config import PoolerConfig

    from vllm import LLM, PoolingParams

    model = LLM(
        model=folder,
        runner="pooling",
        convert="auto",
        pooler_config=PoolerConfig(task="classify", use_activation=False),
        max_num_batched_tokens=batched_tokens,
        enable_prefix_caching=True,
        dtype="bfloat16",
        max_model_len=4096,
    )
    params = PoolingParams(task="classify", use_activation=False)

    def measured(question: dict[str, Any]) -> dict[str, Any]:
        prompts = [{"prompt_token_ids": ids} for ids in question["ids"]]
        started = time.perf_counter()
        outputs = model.encode(prompts, pooling_task="classify", pooling_params=params, use_tqdm=False)
        seconds = time.perf_counter() - started
        return {"seconds": seconds, "scores": [float(one.outputs.data[0]) for one in outputs]}

    answer_all(measured)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
