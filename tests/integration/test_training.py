"""The real loop under torchrun: DeepSpeed, gloo and the checkpoints, with no Ray."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from heliostat.infra.config.strict import build
from heliostat.infra.storage.config import StorageConfig
from heliostat.train import tasks
from heliostat.train.data.config import DataConfig
from heliostat.train.data.prepared import Prepared, prepare
from heliostat.train.models.architectures.config import Gan, ModelConfig
from heliostat.train.models.architectures.network import Settings, write_settings
from heliostat.train.models.bases import learned_inputs

SCRIPT = Path(__file__).with_name("fit_script.py")
STEPS = 12
MANY = 50


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Path:
    """A folder with an encoder and the prepared reviews, with their classes."""
    folder = tmp_path_factory.mktemp("training")
    shutil.copytree(tiny_encoder, folder / "model")
    return folder


@pytest.fixture(scope="module")
def language(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Path:
    """A folder with a decoder and the prepared reviews, as plain text."""
    folder = tmp_path_factory.mktemp("language")
    words = PreTrainedTokenizerFast.from_pretrained(tiny_encoder)
    words.save_pretrained(folder / "model")
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=len(words), max_position_embeddings=64, initializer_range=0.2, **sizes)
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    return folder


@pytest.fixture(scope="module")
def adversarial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a generator that is yet to learn, and 400 digits."""
    return tmp_path_factory.mktemp("adversarial")


@pytest.fixture(scope="module", autouse=True)
def data_prepared(place: Path, language: Path, adversarial: Path, tiny_values: dict[str, Any]) -> None:
    """Prepares the data of all folders, in one Ray."""
    ray.init(num_cpus=2, include_dashboard=False, _node_ip_address="127.0.0.1", log_to_driver=False)
    try:
        prepare_data(place, "text-classification", tiny_values["data"])
        prepare_data(language, "causal-lm", tiny_values["data"])
        prepared = prepare_data(adversarial, "image-generation", {"source": "dataset:digits", "limit": 400})
    finally:
        ray.shutdown()
    inputs = learned_inputs(prepared)
    assert inputs
    (adversarial / "model").mkdir()
    write_settings(Settings(model=ModelConfig(gan=Gan(noise=8, channels=[8, 8])), inputs=inputs), adversarial / "model")


def prepare_data(folder: Path, task: str, values: dict[str, Any]) -> Prepared:
    """Prepares the data for `task` and the model where one is there; the script finds both in the folder."""
    data, model = build(DataConfig, values), folder / "model"
    encoder = tasks.get(task).encoder(data, model if model.exists() else None)
    prepared = prepare(data, encoder, StorageConfig(url=str(folder / "storage")))
    (folder / "task").write_text(task)
    (folder / "fingerprint").write_text(prepared.fingerprint)
    return prepared


def fitted(place: Path, workers: int, runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the script says of each run on so many workers."""
    common = {
        "workers": workers, "global_batch_size": 24, "learning_rate": 0.003, "max_steps": STEPS, "epochs": 9,
        "precision": "fp32", "dropout": 0.0, "warmup": 0.0,
    }  # fmt: skip
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(workers)]
    asked = json.dumps([{**common, **values} for values in runs])
    done = subprocess.run(
        [*command, str(SCRIPT), str(place), asked], capture_output=True, text=True, timeout=400, check=False
    )
    found = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert found, done.stderr[-3000:]
    return list(json.loads(found[0].removeprefix("RESULT ")))


TRIALS = [(0, "fp32"), *((stage, "bf16") for stage in range(4))]
"""Stage 0 in float32 has PyTorch's own optimizer, all others DeepSpeed's around it."""
BEFORE = {"learning_rate": 0.003, "weight_decay": 0.01, "betas": [0.9, 0.999]}
AFTER = {"learning_rate": 0.006, "weight_decay": 0.5, "betas": [0.8, 0.99]}
RUNS: dict[str, dict[str, Any]] = {
    **{f"stage {stage}": {"zero_stage": stage, "max_steps": MANY} for stage in range(4)},
    "bf16": {"zero_stage": 1, "precision": "bf16"},
    **{
        f"stage {stage}, {part}": {"zero_stage": stage, "checkpoint_every": 5, "checkpoints": f"points-{stage}", **stop}
        for stage in (1, 3)
        for part, stop in (("cut off", {"stop_at": 7}), ("resumed", {}))
    },
    **{
        f"stage {stage}, left": {
            "zero_stage": stage,
            "checkpoint_every": 5,
            "checkpoints": f"left-{stage}",
            "stop_at": 7,
        }
        for stage in range(4)
    },
    **{
        f"stage {stage}, {precision}, {steps} steps": {
            "zero_stage": stage,
            "precision": precision,
            "schedule": "constant",
            "max_steps": steps,
            "poisoned": [4],
        }
        for stage in range(4)
        for precision in ("fp32", "bf16")
        for steps in (4, 5)
    },
    **{
        f"adapter, stage {stage}, {part}": {
            "zero_stage": stage,
            "adapter": {},
            "checkpoint_every": 5,
            "checkpoints": f"adapter-{stage}",
            **stop,
        }
        for stage in range(4)
        for part, stop in (("cut off", {"stop_at": 7}), ("resumed", {}))
    },
    **{
        f"trial, stage {stage}, {precision}, {part}": {
            "zero_stage": stage,
            "precision": precision,
            "max_steps": 4,
            "dropout": 0.1,
            **probed,
        }
        for stage, precision in TRIALS
        for part, probed in (("with", {"probed": 2}), ("without", {}))
    },
    **{
        f"activation checkpointing, stage {stage}": {"zero_stage": stage, "activation_checkpointing": True}
        for stage in range(4)
    },
    **{
        f"dropout, stage {stage}, {part}": {
            "zero_stage": stage,
            "dropout": 0.1,
            "global_batch_size": 48,
            "checkpoint_every": 5,
            "checkpoints": f"dropout-{stage}-{part == 'left alone'}",
            **stop,
        }
        for stage in range(4)
        for part, stop in (("left alone", {}), ("cut off", {"stop_at": 7}), ("resumed", {}))
    },
    **{
        f"early stopping, {part}": {
            "zero_stage": 1,
            "dropout": 0.1,
            "early_stopping": {"patience": 1, "min_delta": 1.0},
            "validate_every": 4,
            "checkpoint_every": 5,
            "checkpoints": f"patience-{part == 'left alone'}",
            **stop,
        }
        for part, stop in (("left alone", {}), ("cut off", {"stop_at": 7}), ("resumed", {}))
    },
    **{
        f"values, stage {stage}, {part}": {
            "zero_stage": stage,
            "dropout": 0.1,
            "checkpoint_every": 5,
            "checkpoints": f"values-{stage}-{part == 'in one run'}",
            **values,
        }
        for stage in range(4)
        for part, values in (
            ("in one run", {**AFTER, "stages": [{"until": 5 / STEPS, **BEFORE}]}),
            ("before", {**BEFORE, "stop_at": 7}),
            ("after", AFTER),
        )
    },
    "dropout, computed again": {
        "zero_stage": 2,
        "dropout": 0.1,
        "global_batch_size": 48,
        "activation_checkpointing": True,
    },
    "adapter, 4 bits": {"zero_stage": 2, "adapter": {"quantize": "nf4"}},
    "poisoned for good": {"poisoned": [3, 4, 5], "max_skipped_steps": 2},
}


ALONE: dict[str, dict[str, Any]] = {
    "plain": {},
    "for long": {"max_steps": MANY},
    "adapter": {"adapter": {}},
    "adapter, 4 bits": {"adapter": {"quantize": "nf4"}},
}
"""Runs of one worker without sharding, which all others must follow."""


@pytest.fixture(scope="module")
def alone_by_name(place: Path) -> dict[str, dict[str, Any]]:
    """All runs of one worker, by name."""
    return dict(zip(ALONE, fitted(place, 1, [{"zero_stage": 0, **run} for run in ALONE.values()]), strict=True))


@pytest.fixture(scope="module")
def alone(alone_by_name: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """One worker, no sharding: what all others must follow."""
    return alone_by_name["plain"]


@pytest.fixture(scope="module")
def alone_for_long(alone_by_name: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The same for MANY steps."""
    return alone_by_name["for long"]


@pytest.fixture(scope="module")
def together(place: Path) -> dict[str, dict[str, Any]]:
    """All runs of two workers, by name."""
    return dict(zip(RUNS, fitted(place, 2, list(RUNS.values())), strict=True))


def steady(metrics: dict[str, float]) -> dict[str, float]:
    """Without the calibration error: a rounding moves a record to another bin."""
    return {name: value for name, value in metrics.items() if name != "calibration_error"}


@pytest.mark.parametrize("stage", range(4))
def test_two_workers_follow_one_at_every_zero_stage(
    together: dict[str, dict[str, Any]], alone_for_long: dict[str, Any], stage: int
) -> None:
    alone, sharded = alone_for_long, together[f"stage {stage}"]
    assert len(sharded["losses"]) == MANY
    assert sharded["losses"] == pytest.approx(alone["losses"], rel=1e-3)
    assert sharded["norms"] == pytest.approx(alone["norms"], rel=1e-2)
    assert steady(sharded["metrics"]) == pytest.approx(steady(alone["metrics"]), rel=1e-3)
    assert sharded["sums"] == pytest.approx(alone["sums"], rel=1e-3, abs=1e-2)


@pytest.mark.parametrize("stage", range(4))
def test_each_step_tells_what_it_waited_for(together: dict[str, dict[str, Any]], stage: int) -> None:
    for data, communication, whole in together[f"stage {stage}"]["waits"]:
        assert data > 0
        assert communication > 0
        assert data + communication < whole


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("stage", range(4))
def test_a_step_that_is_no_number_changes_nothing_and_the_run_goes_on(
    together: dict[str, dict[str, Any]], stage: int, precision: str
) -> None:
    before, after = (together[f"stage {stage}, {precision}, {steps} steps"] for steps in (4, 5))
    assert after["error"] is None
    assert math.isnan(after["losses"][4])
    assert not math.isfinite(after["norms"][4])
    assert after["losses"][:4] == before["losses"]
    assert after["sums"] == before["sums"]
    assert after["metrics"] == before["metrics"]


def test_nothing_is_left_of_a_run_in_the_processes_that_go_on_with_the_next(
    together: dict[str, dict[str, Any]],
) -> None:
    assert [name for name, run in together.items() if not run["freed"]] == []


def test_a_run_that_ends_early_ends_at_the_same_step_when_it_is_resumed(
    together: dict[str, dict[str, Any]],
) -> None:
    alone, cut, resumed = (together[f"early stopping, {part}"] for part in ("left alone", "cut off", "resumed"))
    assert len(alone["losses"]) == 8
    assert alone["patience"] == {**alone["patience"], "since": 4, "waited": 1, "step": 8, "steps": STEPS}
    assert cut["losses"] == alone["losses"][:7]
    assert resumed["losses"] == alone["losses"][5:]
    assert (resumed["sums"], resumed["patience"]) == (alone["sums"], alone["patience"])


def test_steps_that_stay_no_numbers_end_the_run_and_are_named(together: dict[str, dict[str, Any]]) -> None:
    ended = together["poisoned for good"]
    assert len(ended["losses"]) == 6
    assert ended["error"].startswith("loss is nan at step 6 in training records ")
    assert "3 steps in a row, train.max_skipped_steps is 2" in ended["error"]
    assert "the weights are still those after step 3" in ended["error"].lower()


SHARDED = {"zero_stage": 3, "deepspeed": {"zero_optimization": {"stage3_param_persistence_threshold": 0}}}
"""Stage 3 with all parameters sharded: DeepSpeed leaves small ones whole, and all of these are small."""
OFFLOADED = {f"offload_{part}": {"device": "cpu"} for part in ("optimizer", "param")}
"""What `train.offload` tells DeepSpeed; the key itself is refused without GPUs."""
CUT = {"checkpoint_every": 5, "stop_at": 7}
PACKED: dict[int, dict[str, dict[str, Any]]] = {
    2: {
        "stage 2": {"zero_stage": 2},
        "stage 3": {"zero_stage": 3},
        "checkpointing": {"zero_stage": 3, "activation_checkpointing": True},
        "offloaded": {"zero_stage": 3, "deepspeed": {"zero_optimization": OFFLOADED}},
        "sequence parallel": {"sequence_parallel": 2, "activation_checkpointing": True},
        "sequence parallel, cut off": {**SHARDED, "sequence_parallel": 2, "checkpoints": "sequence", **CUT},
        "sequence parallel, resumed": {**SHARDED, "sequence_parallel": 2, "checkpoints": "sequence"},
        "tensor parallel, cut off": {"zero_stage": 2, "tensor_parallel": 2, "checkpoints": "tensor", **CUT},
        "tensor parallel, resumed": {"zero_stage": 2, "tensor_parallel": 2, "checkpoints": "tensor"},
    },
    4: {
        "sequence parallel of replicas": {**SHARDED, "sequence_parallel": 2},
        "hpZ": {**SHARDED, "hpz_group": 2},
        "hpZ, cut off": {**SHARDED, "hpz_group": 2, "checkpoints": "hpz", **CUT},
        "hpZ, resumed": {**SHARDED, "hpz_group": 2, "checkpoints": "hpz"},
    },
}
"""Runs by number of workers. Process groups outlive a run in its process: hpZ's and AutoTP's runs are the last."""


@pytest.mark.parametrize(
    "workers", [2, pytest.param(4, marks=pytest.mark.faults)]
)  # four share a small machine's cores
def test_packed_rows_train_the_same_however_they_are_shared(language: Path, workers: int) -> None:
    alone = fitted(language, 1, [{"zero_stage": 0}])[0]
    assert alone["losses"][-1] < 0.9 * alone["losses"][0]
    runs = PACKED[workers]
    for name, sharded in zip(runs, fitted(language, workers, list(runs.values())), strict=True):
        steps = slice(5, None) if name.endswith("resumed") else slice(7) if name.endswith("cut off") else slice(None)
        assert sharded["losses"] == pytest.approx(alone["losses"][steps], rel=1e-3), name
        assert sharded["norms"] == pytest.approx(alone["norms"][steps], rel=1e-2), name
        if not name.endswith("cut off"):
            assert sharded["metrics"] == pytest.approx(alone["metrics"], rel=1e-3), name
            assert sharded["sums"] == pytest.approx(alone["sums"], rel=1e-3, abs=1e-2), name


@pytest.mark.faults
def test_compiled_layers_train_the_same(language: Path) -> None:
    alone = fitted(language, 1, [{"zero_stage": 0}])[0]
    for compiled in fitted(language, 2, [{"zero_stage": stage, "compile": True} for stage in (0, 2)]):
        assert compiled["losses"] == pytest.approx(alone["losses"], rel=1e-3)
        assert compiled["sums"] == pytest.approx(alone["sums"], rel=1e-3, abs=1e-2)


def test_bf16_stays_near_float32(together: dict[str, dict[str, Any]], alone: dict[str, Any]) -> None:
    assert together["bf16"]["losses"] != alone["losses"]
    assert together["bf16"]["losses"] == pytest.approx(alone["losses"], rel=0.1)


@pytest.mark.parametrize("stage", range(4))
def test_the_first_steps_in_bf16_are_as_large_as_in_float32(together: dict[str, dict[str, Any]], stage: int) -> None:
    low, full = (together[f"stage {stage}, {precision}, 4 steps"]["losses"] for precision in ("bf16", "fp32"))
    assert low == pytest.approx(full, rel=1e-2)


@pytest.mark.parametrize(("stage", "precision"), TRIALS)
def test_a_trial_before_the_first_step_changes_nothing(
    together: dict[str, dict[str, Any]], stage: int, precision: str
) -> None:
    with_trial, without = (together[f"trial, stage {stage}, {precision}, {part}"] for part in ("with", "without"))
    assert with_trial["losses"] == without["losses"]
    assert with_trial["sums"] == without["sums"]


@pytest.mark.parametrize("stage", range(4))
def test_what_is_computed_again_is_the_same(
    together: dict[str, dict[str, Any]], alone: dict[str, Any], stage: int
) -> None:
    again = together[f"activation checkpointing, stage {stage}"]
    assert again["losses"] == pytest.approx(alone["losses"], rel=1e-4)
    assert again["sums"] == pytest.approx(alone["sums"], rel=1e-3, abs=1e-2)


@pytest.fixture(scope="module")
def adapted(alone_by_name: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """One worker with adapters: beside the model as it is, and beside one in 4 bits."""
    return [alone_by_name["adapter"], alone_by_name["adapter, 4 bits"]]


@pytest.mark.parametrize("stage", range(4))
def test_adapters_train_the_same_on_two_workers_and_across_a_cut(
    together: dict[str, dict[str, Any]], adapted: list[dict[str, Any]], alone: dict[str, Any], stage: int
) -> None:
    losses = adapted[0]["losses"]
    assert losses[0] == pytest.approx(alone["losses"][0], rel=1e-5), "they change nothing before they are trained"
    assert losses[-1] < losses[0]
    assert losses != alone["losses"]
    cut_off, resumed = (together[f"adapter, stage {stage}, {part}"] for part in ("cut off", "resumed"))
    assert cut_off["losses"] == pytest.approx(losses[:7], rel=1e-3)
    assert resumed["losses"] == pytest.approx(losses[5:], rel=1e-3)
    assert resumed["sums"] == pytest.approx(adapted[0]["sums"], rel=1e-3, abs=1e-2)
    assert resumed["sums"].keys() == alone["sums"].keys()


def test_adapters_train_beside_a_model_in_4_bits(
    together: dict[str, dict[str, Any]], adapted: list[dict[str, Any]]
) -> None:
    losses = adapted[1]["losses"]
    assert losses[0] != adapted[0]["losses"][0]
    assert losses[0] == pytest.approx(adapted[0]["losses"][0], rel=0.05)
    assert losses[-1] < losses[0]
    assert together["adapter, 4 bits"]["losses"] == pytest.approx(adapted[1]["losses"], rel=1e-3)
    assert together["adapter, 4 bits"]["sums"].keys() == adapted[0]["sums"].keys()


@pytest.mark.parametrize("stage", [1, 3])
def test_a_run_that_was_cut_off_goes_on_as_if_nothing_had_happened(
    together: dict[str, dict[str, Any]], alone: dict[str, Any], stage: int
) -> None:
    assert len(together[f"stage {stage}, cut off"]["losses"]) == 7
    assert together[f"stage {stage}, resumed"]["losses"] == pytest.approx(alone["losses"][5:], rel=1e-3)


@pytest.mark.parametrize("stage", range(4))
def test_a_run_with_dropout_that_was_cut_off_ends_bit_for_bit_as_one_left_alone(
    together: dict[str, dict[str, Any]], stage: int
) -> None:
    whole, resumed = (together[f"dropout, stage {stage}, {part}"] for part in ("left alone", "resumed"))
    assert whole["losses"] != together[f"stage {stage}"]["losses"][:STEPS]
    assert resumed["losses"] == whole["losses"][5:]
    assert resumed["sums"] == whole["sums"]


@pytest.mark.parametrize("stage", range(4))
def test_new_values_hold_from_the_next_step_on_whatever_a_restored_optimizer_brings(
    together: dict[str, dict[str, Any]], stage: int
) -> None:
    whole, before, after = (together[f"values, stage {stage}, {part}"] for part in ("in one run", "before", "after"))
    assert whole["losses"][:5] == before["losses"][:5]
    assert whole["losses"][6] != before["losses"][6]
    assert after["losses"] == whole["losses"][5:]
    assert after["sums"] == whole["sums"]


def test_each_step_of_each_rank_draws_from_a_stream_of_its_own(together: dict[str, dict[str, Any]]) -> None:
    whole, resumed = (together[f"dropout, stage 2, {part}"]["streams"] for part in ("left alone", "resumed"))
    assert len({stream for ranks in whole for stream in ranks}) == 2 * STEPS
    assert resumed == whole[5:]


def test_dropout_that_is_computed_again_is_the_same(together: dict[str, dict[str, Any]]) -> None:
    again, whole = together["dropout, computed again"], together["dropout, stage 2, left alone"]
    assert again["losses"] == pytest.approx(whole["losses"], rel=1e-4)


CHANGES = {
    **{f"stage {stage}": (stage, {"zero_stage": stage}) for stage in range(4)},
    "stage 1 to 3": (1, {"zero_stage": 3}),
    "stage 3 to 2": (3, {"zero_stage": 2}),
}
"""The stage that two workers left, and what others go on with."""


@pytest.mark.parametrize("workers", [1, 3, 4])
def test_a_run_goes_on_with_another_number_of_workers_or_at_another_stage(
    place: Path, together: dict[str, dict[str, Any]], alone: dict[str, Any], workers: int
) -> None:
    runs = []
    for name, (stage, values) in CHANGES.items():
        points = f"{name}, {workers}"
        shutil.copytree(place / "storage" / f"left-{stage}", place / "storage" / points)
        runs.append({"checkpoints": points, "checkpoint_every": 99, **values})
    for name, resumed in zip(CHANGES, fitted(place, workers, runs), strict=True):
        assert resumed["losses"] == pytest.approx(alone["losses"][5:], rel=1e-3), name
        assert resumed["sums"] == pytest.approx(alone["sums"], rel=1e-3, abs=1e-2), name


def test_a_generator_trains_the_same_across_a_cut_and_its_average_moves_once_a_step(adversarial: Path) -> None:
    steps, passes = 4, 3
    common: dict[str, Any] = {"global_batch_size": 64 * passes, "max_steps": steps, "checkpoint_every": 2}
    cut: list[dict[str, Any]] = [{"checkpoints": "noise", "stop_at": 3}, {"checkpoints": "noise"}]
    runs = [{**common, "zero_stage": 0}, *({**common, "zero_stage": 2, **values} for values in ({}, *cut))]
    *whole, _, resumed = fitted(adversarial, 1, runs)
    for found in whole:
        assert (found["sums"]["moves"], found["sums"]["is_behind"]) == (steps, 0)
        assert all(math.isfinite(loss) for loss in found["losses"])
    assert resumed["losses"] == whole[-1]["losses"][2:]
    assert resumed["sums"] == whole[-1]["sums"]
