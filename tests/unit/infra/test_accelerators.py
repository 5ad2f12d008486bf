import pytest

from heliostat.infra.accelerators import ACCELERATORS, accelerator_of


@pytest.mark.parametrize(
    ("device", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA A100-SXM4-80GB", "A100 80 GB"),
        ("NVIDIA A100-PCIE-40GB", "A100"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA B200", "B200"),
    ],
)
def test_a_device_is_known_by_the_name_that_its_driver_gives(device: str, name: str) -> None:
    found = accelerator_of(device)
    assert found is not None
    assert found.name == name


def test_a_device_that_is_not_in_the_table_is_unknown() -> None:
    assert accelerator_of("NVIDIA GeForce RTX 4090") is None


def test_every_accelerator_names_its_data_sheet() -> None:
    assert all(one.data_sheet.startswith("https://") for one in ACCELERATORS)
    assert len({one.name for one in ACCELERATORS}) == len(ACCELERATORS)
