"""Many ranks with one sample a request each; `tests/endurance` and `benchmarks/many_ranks.py` have the full size."""

from benchmarks.many_ranks import measure
from benchmarks.workloads import Workload


def test_every_sample_of_64_ranks_is_scored_once_with_the_number_of_a_batch() -> None:
    work = Workload(prompts=20, responses=8, prompt_words=10, response_words=10)
    measured = measure(samples=320, ranks=64, work=work)
    assert len(set(measured.rewards["ranks"])) > 300  # float32 numbers may meet by chance
    assert measured.ratio > 0.1, measured.summary()
