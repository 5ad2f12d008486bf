from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from heliostat.infra.lean_imports import without

PROGRAM = """
import sys
from heliostat.infra.lean_imports import import_transformers
import_transformers()
from transformers import AutoModelForCausalLM
assert "transformers.generation.candidate_generator" in sys.modules
assert not {"sklearn", "scipy"} & set(sys.modules)
import sklearn
"""
DRIVER = """
import sys
from heliostat.train import launch, tasks
for task in ("causal-lm", "image-classification", "image-generation", "tabular-classification", "text-classification"):
    tasks.get(task)
assert "torch" in sys.modules
assert not {"torch._dynamo", "torch.export.pt2_archive", "deepspeed", "heliostat.train.worker"} & set(sys.modules)
"""


def test_an_import_fails_inside_the_block_only_and_what_is_loaded_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "this", raising=False)
    with without("this"), pytest.raises(ImportError):
        importlib.import_module("this")
    assert "this" not in sys.modules
    with without("json"):
        assert importlib.import_module("json").loads("1") == 1


@pytest.mark.parametrize("program", [PROGRAM, DRIVER], ids=["transformers", "a driver"])
def test_what_is_not_used_is_not_imported_and_can_be_later(program: str) -> None:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
