"""Two training ranks. Rank 0 gets its rewards from the service, rank 1 asks where none is.

`python -m torch.distributed.run --standalone --nproc-per-node 2 -m tests.trainers.rank HOW AFTER` runs them under
torchrun, `python -m tests.trainers.rank FOLDER` both kinds that need no launcher, at once. HOW is the client's
`on_failure`. AFTER says what a rank does that gets an exception: `end`, as any program does, or `stay`, as under a
debugger or in a trainer that catches it. Then the ranks gather their rewards, as every trainer does.
"""

import json
import math
import multiprocessing
import sys
import time
from datetime import timedelta

import torch
from torch import distributed

from reward_service.client import Unavailable
from reward_service.client.trainers.connecting import connect
from reward_service.client.trainers.rollouts import conversation

GROUP_TIMEOUT_S = 5.0
CASES = (("none", "end"), ("raise", "stay"))
CONVERSATIONS = [conversation("How tall is a giraffe?", answer) for answer in ("About five metres.", "Very.")]


def rewards(rank: int, how: str, after: str) -> list[float]:
    """The rank's own; NaN for None, as in TRL."""
    url = None if rank == 0 else "http://127.0.0.1:9"
    try:
        answer = connect(url, on_failure=how, deadline_s=1.0).score(CONVERSATIONS)  # type: ignore[arg-type]
    except Unavailable:
        if after == "stay":
            time.sleep(10 * GROUP_TIMEOUT_S)
        raise
    return [math.nan if one is None else one for one in answer.rewards]


def gathered(own: list[float], group: distributed.ProcessGroup) -> list[list[float]]:
    """The rewards of all ranks."""
    found = [torch.zeros(len(own)) for _ in range(distributed.get_world_size())]
    distributed.all_gather(found, torch.tensor(own), group)
    return [one.tolist() for one in found]


def step(how: str, after: str) -> None:
    """A training step, up to the advantages; prints what the rank saw, and when.

    Rank 1 asks when rank 0 has its rewards: only the gather is under the group's timeout, not how fast a machine is.
    """
    rank = distributed.get_rank()
    distributed.barrier()
    group = distributed.new_group(timeout=timedelta(seconds=GROUP_TIMEOUT_S))
    if rank == 1:
        distributed.barrier()
    own = rewards(rank, how, after)
    if rank == 0:
        distributed.barrier()
    began = time.monotonic()
    saw, found = "the rewards of all", []
    try:
        found = gathered(own, group)
    except RuntimeError as error:
        saw = str(error)
    seen = {"how": how, "rank": rank, "saw": saw, "waited_s": time.monotonic() - began, "rewards": repr(found)}
    sys.stdout.write(f"{json.dumps(seen)}\n")  # one piece: the ranks share the pipe, and `print` may write two
    sys.stdout.flush()
    if not found:
        if after == "end":  # torchrun looks every 0.1 s: the rank that it then ends is not the one that failed first
            time.sleep(10 * GROUP_TIMEOUT_S)
        sys.exit(3)


def joined(folder: str, rank: int, how: str, after: str) -> None:
    """A step of a process without a launcher."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"file://{folder}/{how}", world_size=2, rank=rank)
    step(how, after)


def both(folder: str) -> None:
    """Each case, with a process for each rank; the second one is ended after a first one that failed."""
    fork = multiprocessing.get_context("fork")
    pairs = [[fork.Process(target=joined, args=(folder, i, *case)) for i in range(2)] for case in CASES]
    for process in (one for pair in pairs for one in pair):
        process.start()
    for first, second in pairs:
        first.join()
        if first.exitcode:
            second.terminate()
        second.join()


if __name__ == "__main__":
    if len(sys.argv) == 2:
        both(sys.argv[1])
    else:
        distributed.init_process_group("gloo")
        step(*sys.argv[1:])
