"""Large tensors have memory of their own, which is used again and given back; each test in a new process."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HEAD = """
import json, os, random, re, resource, signal, threading
from pathlib import Path
import torch
from reward_service.engine import memory

def resident_mib():
    return int(re.findall(r"VmRSS:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[0]) / 1024

"""
USED_AGAIN = """
before = torch.ones(1 << 20)
memory.keep_freed_memory()
first = torch.full((700_000,), 1.0)
second = torch.full((700_000,), 2.0)
apart = bool((first == 1).all() and (second == 2).all())
place = first.data_ptr()
del first, before
longer = torch.full((900_000,), 3.0)
longer.resize_(1_500_000)
kept = bool((longer[:900_000] == 3).all() and (second == 2).all())
again = torch.empty(800_000)
print(json.dumps({"apart": apart, "kept": kept, "same": again.data_ptr() == place, "aligned": place % 64 == 0}))
"""
LEVELS_OFF = """
memory.keep_freed_memory()
chance, small, found = random.Random(0), [], []
for _ in range(120):
    length = chance.randrange(2000, 4096)
    tensors = []
    for width in (512, 512, 1408, 1408, 1024):
        tensors.append(torch.zeros(length, width, dtype=torch.bfloat16))
        small += [bytes(chance.randrange(600, 3000)) for _ in range(200)]
    small = small[-4000:] if len(small) < 12000 else chance.sample(small, 4000)
    del tensors
    found.append(resident_mib())
print(json.dumps({"early": max(found[:40]), "late": max(found)}))
"""
GIVEN_BACK = """
memory.keep_freed_memory()
tensors = [torch.zeros(16 << 20, dtype=torch.uint8) for _ in range(16)]
full = resident_mib()
del tensors
kept = resident_mib()
memory.release_memory()
again = torch.zeros(16 << 20, dtype=torch.uint8)
print(json.dumps({"full": full, "kept": kept, "released": resident_mib(), "sum": int(again.sum())}))
"""
BY_THREADS = """
memory.keep_freed_memory()
wrong, queue = [], []

def work(number):
    chance = random.Random(number)
    for _ in range(300):
        tensor = torch.full((chance.randrange(100_000, 400_000),), float(number))
        queue.append((number, tensor))
        other, taken = queue.pop(0)
        if not bool((taken == other).all()):
            wrong.append(other)

threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(json.dumps({"wrong": wrong}))
"""
COPIED = """
memory.keep_freed_memory()
done, found = threading.Event(), []

def work():
    while not done.is_set():
        torch.empty(1 << 20)

threads = [threading.Thread(target=work) for _ in range(3)]
[thread.start() for thread in threads]
for _ in range(150):
    child = os.fork()
    if child == 0:
        signal.alarm(100)
        torch.empty(1 << 20)
        os._exit(0)
    found.append(os.waitpid(child, 0)[1])
    if found[-1]:
        break
done.set()
[thread.join() for thread in threads]
print(json.dumps({"children": found}))
"""
LITTLE_ROOM = """
memory.keep_freed_memory()
mib = 1 << 20
taken = int(re.findall(r"VmSize:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[0]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (taken + 600 * mib, resource.RLIM_INFINITY))
torch.empty(200 * mib, dtype=torch.uint8)
smaller = [torch.empty(100 * mib, dtype=torch.uint8) for _ in range(4)]
del smaller
torch.empty(500 * mib, dtype=torch.uint8)
try:
    torch.empty(700 * mib, dtype=torch.uint8)
except RuntimeError as error:
    print(json.dumps({"too_large": str(error)}))
"""
WITHOUT_COMPILER = """
told = memory.keep_freed_memory()
print(json.dumps({"told": told, "sum": float(torch.ones(1 << 20).sum())}))
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the segments are made for Linux only")


def printed(script: str, **environment: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", HEAD + script],
        capture_output=True,
        text=True,
        timeout=300,  # the first compiles what all of them load
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = {**json.loads(done.stdout), "stderr": done.stderr}
    if "cannot be compiled" in done.stderr and "CXX" not in environment:
        pytest.skip("this machine has no C++ compiler: large tensors have no memory of their own here")
    return found


def test_a_large_tensor_takes_the_memory_that_another_has_left_and_no_other() -> None:
    found = printed(USED_AGAIN)
    assert (found["apart"], found["kept"], found["same"], found["aligned"]) == (True, True, True, True)


def test_small_things_that_come_and_go_between_tensors_do_not_make_the_process_grow() -> None:
    found = printed(LEVELS_OFF)
    assert found["late"] <= found["early"] + 6


def test_memory_is_kept_when_tensors_are_freed_and_given_back_when_told() -> None:
    found = printed(GIVEN_BACK)
    assert found["kept"] > found["full"] - 16
    assert found["released"] < found["kept"] - 200
    assert found["sum"] == 0


def test_threads_free_what_others_have_made() -> None:
    assert printed(BY_THREADS)["wrong"] == []


@pytest.mark.parametrize("says", [None, "\\n", "\\351 in another alphabet\\n"], ids=["absent", "blank", "alphabet"])
def test_without_a_compiler_the_c_library_keeps_what_is_freed(tmp_path: Path, says: str | None) -> None:
    compiler = tmp_path / "compiler"
    if says is not None:
        compiler.write_text(f"#!/bin/sh\nprintf '{says}' >&2\nexit 1\n")
        compiler.chmod(0o755)
    found = printed(WITHOUT_COMPILER, CXX=str(compiler))
    assert (found["told"], found["sum"]) == (True, float(1 << 20))
    assert "the C library's is used" in found["stderr"]


def test_a_process_that_is_copied_while_threads_make_tensors_can_make_its_own() -> None:
    assert set(printed(COPIED)["children"]) == {0}


def test_what_is_kept_makes_room_when_there_is_no_other() -> None:
    assert "can't allocate memory" in printed(LITTLE_ROOM)["too_large"]
