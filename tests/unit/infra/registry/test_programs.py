"""Exported programs: what is in them, and that they answer as the model did."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch

from heliostat.infra.errors import ModelError
from heliostat.infra.registry import programs


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mean = torch.nn.Buffer(torch.ones(4))
        self.layers = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 2))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.layers(features - self.mean)
        return found


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Model, Path]:
    model = Model()
    programs.save(model, {"features": torch.zeros(2, 4)}, tmp_path)
    return model.eval(), tmp_path


@pytest.mark.parametrize("records", [1, 2, 37])
def test_a_program_answers_as_the_model_for_any_number_of_records(saved: tuple[Model, Path], records: int) -> None:
    model, folder = saved
    program = programs.load(folder).train()
    features = torch.randn(records, 4)
    assert torch.equal(program(features=features), model(features))


def test_a_program_has_the_weights_and_shapes_of_the_model(saved: tuple[Model, Path]) -> None:
    model, folder = saved
    program = programs.load(folder)
    assert {name: one.tolist() for name, one in program.weights().items()} == {
        name: one.tolist() for name, one in model.state_dict().items()
    }
    assert program.shapes["features"][1] == 4


def test_nothing_in_the_archive_is_pickled(saved: tuple[Model, Path]) -> None:
    with zipfile.ZipFile(saved[1] / programs.FILE) as archive:
        files = [file.filename for file in archive.infolist() if b"\x80\x02" in archive.read(file)[:2]]
        inputs = [file for file in archive.infolist() if "sample_inputs" in file.filename]
    assert files == []
    assert [file.file_size for file in inputs] == [0]


def test_a_file_that_is_no_program_is_refused_in_one_line(tmp_path: Path) -> None:
    for content in (None, b"no archive"):
        if content:
            (tmp_path / programs.FILE).write_bytes(content)
        with pytest.raises(ModelError, match=r"program.pt2: no exported program; .* is needed$"):
            programs.load(tmp_path)
    with zipfile.ZipFile(tmp_path / programs.FILE, "w") as archive:
        archive.writestr("something", "else")
    with pytest.raises(ModelError, match=r"program.pt2: cannot be loaded"):
        programs.load(tmp_path)


def test_a_model_that_goes_by_what_its_numbers_are_cannot_be_exported(tmp_path: Path) -> None:
    class Fickle(torch.nn.Module):
        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return features if features.sum() > 0 else -features

    with pytest.raises(ModelError, match=r"^the model cannot be exported \("):
        programs.save(Fickle(), {"features": torch.zeros(2, 4)}, tmp_path)
    assert not (tmp_path / programs.FILE).exists()
