"""20,000 samples of 64 ranks, one a request, beside the same in batches: minutes."""

import json

from benchmarks.many_ranks import measure


def test_64_ranks_lose_nothing_and_are_about_as_fast_as_a_batched_client() -> None:
    measured = measure(samples=20_000, ranks=64)
    print(json.dumps(measured.summary()))
    assert len(set(measured.rewards["ranks"])) > 19_900  # a few float32 numbers meet by chance
    assert measured.ratio > 0.7, measured.summary()
