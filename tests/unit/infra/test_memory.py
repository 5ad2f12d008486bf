from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import resource, torch
from heliostat.infra.memory import keep_freed_memory

def faults(passes=20):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(passes):
        torch.ones(4_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = faults()
keep_freed_memory()
faults()
print(before, faults())
"""

HEAP = """
import gc
from heliostat.infra.memory import frozen_heap

heap = [[] for _ in range(100_000)]
with frozen_heap():
    print(len(gc.get_objects()))
print(len(gc.get_objects()))
"""


def test_a_block_that_was_freed_is_used_again_without_a_page_fault_for_each_page() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    before, after = (int(number) for number in done.stdout.split())
    assert after < before / 10


def test_collections_leave_out_what_was_there_before_the_block_and_not_after_it() -> None:
    done = subprocess.run([sys.executable, "-c", HEAP], capture_output=True, text=True, check=True)
    inside, after = (int(number) for number in done.stdout.split())
    assert inside < 10_000 < 100_000 < after
