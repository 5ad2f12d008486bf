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
assert "sklearn" not in sys.modules
import sklearn
"""


def test_an_import_fails_inside_the_block_only_and_what_is_loaded_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "this", raising=False)
    with without("this"), pytest.raises(ImportError):
        importlib.import_module("this")
    assert "this" not in sys.modules
    with without("json"):
        assert importlib.import_module("json").loads("1") == 1


def test_transformers_is_imported_without_scikit_learn_which_can_be_imported_later() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
