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


def test_a_block_that_was_freed_is_used_again_without_a_page_fault_for_each_page() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    before, after = (int(number) for number in done.stdout.split())
    assert after < before / 10
