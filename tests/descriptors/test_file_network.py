"""A user's network as a descriptor, against the network itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from screener_nnu.descriptors.file_network import FileDescriptor
from screener_nnu.errors import ScreenerError
from screener_nnu.plans import PreprocessingSettings
from screener_nnu.scoring.teacher import weights_hash

torch.set_num_threads(1)


def of_plan(
    spacing: tuple[float, float, float], hu_clip: tuple[float, float] = (-1024.0, 1500.0)
) -> PreprocessingSettings:
    """Of a plan with such images."""
    return PreprocessingSettings(spacing, spacing, hu_clip)


ENDINGS = [".pt", ".pt2", ".onnx"]
Write = Callable[..., Path]
Make = Callable[[], nn.Module]


def images(*shape: int, batch: int = 2) -> torch.Tensor:
    return torch.rand(batch, 1, *shape, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("ending", ENDINGS)
def test_volumes_go_through_the_network(ending: str, network_file: Write, encoder: Make) -> None:
    descriptor = FileDescriptor(network_file(ending))
    assert (descriptor.channels, descriptor.reads, descriptor.divisor) == (
        3,
        "equalised",
        (1, 2, 4),
    )
    assert descriptor.spacing == (3.0, 2.0, 2.0)
    image = images(5, 7, 9)
    with torch.no_grad():
        cells = encoder()(F.pad(image, (0, 3, 0, 1)))
    expected = cells.repeat_interleave(2, 3).repeat_interleave(2, 4)[:, :, :, :7, :9]
    torch.testing.assert_close(descriptor(image), expected, rtol=1e-4, atol=1e-5)
    pooled = F.avg_pool3d(expected, (2, 3, 2))
    torch.testing.assert_close(descriptor.pooled(image, (2, 3, 2)), pooled, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("ending", ENDINGS)
def test_slices_go_through_the_network(
    ending: str, network_file: Write, slice_encoder: Make
) -> None:
    """HU of a window as [-1, 1], filled up with what is below the window."""
    descriptor = FileDescriptor(network_file(ending, "slices"), slices_at_once=2)
    assert descriptor.reads == "hu" and descriptor.divisor == (1, 2, 4)
    hu = images(5, 7, 9) * 2000 - 1000
    seen = 2 * (F.pad(hu, (0, 3, 0, 1), value=-2000).clamp(-200, 300) + 200) / 500 - 1
    network = slice_encoder()
    maps = []
    for i in range(5):
        near = [seen[:, 0, max(i - 1, 0)], seen[:, 0, i], seen[:, 0, min(i + 1, 4)]]
        with torch.no_grad():
            maps.append(network(torch.stack(near, dim=1)))
    cells = torch.stack(maps, dim=2)
    expected = cells.repeat_interleave(2, 3).repeat_interleave(4, 4)[:, :, :, :7, :9]
    torch.testing.assert_close(descriptor(hu), expected, rtol=1e-4, atol=1e-5)
    pooled = F.avg_pool3d(expected, (2, 2, 3))
    torch.testing.assert_close(descriptor.pooled(hu, (2, 2, 3)), pooled, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_low_precision_networks_are_given_theirs(
    dtype: str, network_file: Write, encoder: Make
) -> None:
    descriptor = FileDescriptor(network_file(".pt", precision=dtype))
    image = images(2, 4, 4)
    kind = getattr(torch, dtype)
    with torch.no_grad():
        expected = encoder().to(kind)(image.to(kind)).float()
    found = descriptor(image)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found[..., ::2, ::2], expected)


def test_mixed_precision_does_not_reach_the_network(network_file: Write) -> None:
    descriptor, image = FileDescriptor(network_file(".pt")), images(2, 4, 4)
    expected = descriptor(image)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(descriptor(image), expected)


def test_a_subset_of_channels_is_that_of_the_whole_map(network_file: Write) -> None:
    path, hu = network_file(".pt", "slices"), images(3, 4, 8) * 300
    few = FileDescriptor(path, most_channels=2, seed=1)
    assert few.channels == 2
    torch.testing.assert_close(few(hu), FileDescriptor(path)(hu)[:, few.kept])


@pytest.mark.parametrize("ending", ENDINGS)
def test_identity_is_that_of_file_and_json(ending: str, network_file: Write) -> None:
    path = network_file(ending)
    first = weights_hash(FileDescriptor(path))
    assert weights_hash(FileDescriptor(path)) == first
    card = path.with_suffix(".json")
    values = json.loads(card.read_text())
    card.write_text(json.dumps(dict(reversed(values.items())), indent=8))
    assert weights_hash(FileDescriptor(path)) == first
    card.write_text(json.dumps({**values, "spacing": [3.0, 2.0, 2.5]}))
    assert weights_hash(FileDescriptor(path)) != first


def test_a_plan_of_another_spacing_is_refused(network_file: Write) -> None:
    descriptor = FileDescriptor(network_file(".pt"))
    descriptor.check_images(of_plan((3.02, 1.99, 2.0)))
    with pytest.raises(
        ScreenerError, match="made for voxels of 3 x 2 x 2 mm and the plan has 3 x 2 x 2.5 mm"
    ):
        descriptor.check_images(of_plan((3.0, 2.0, 2.5)))
    flat = FileDescriptor(network_file(".pt", "slices"))
    flat.check_images(of_plan((7.0, 1.5, 1.5)))
    with pytest.raises(ScreenerError, match="any x 1.5 x 1.5 mm and the plan has 7 x 1 x 1.5 mm"):
        flat.check_images(of_plan((7.0, 1.0, 1.5)))


@pytest.mark.parametrize("clip", [(-150.0, 1500.0), (-1000.0, 299.0)])
def test_hu_that_the_plan_cuts_off_are_missed(
    network_file: Write, clip: tuple[float, float]
) -> None:
    descriptor = FileDescriptor(network_file(".pt", "slices"))
    descriptor.check_images(of_plan((7.0, 1.5, 1.5), (-200.0, 300.0)))
    wide = f"{min(-200, clip[0]):g},{max(300, clip[1]):g}"
    with pytest.raises(
        ScreenerError, match=rf"reads -200 to 300 HU .* -o preprocessing.hu_clip=\[{wide}\]"
    ):
        descriptor.check_images(of_plan((7.0, 1.5, 1.5), clip))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"channels": 4},
            r"makes \(1, 3, 2, 1, 6\) of torch.float32, and .* say \(1, 4, 2, 1, 6\)",
        ),
        ({"strides": [1, 1, 2]}, r"makes \(1, 3, 2, 1, 6\) .* say \(1, 3, 2, 2, 6\)"),
        ({"divisor": [], "strides": [1, 2, 1]}, r"makes .* say \(1, 3, 2, 1, 3\)"),
        ({"dtype": "bfloat16"}, "fails on an input .* of bfloat16|makes .* of torch.float32"),
        (
            {"layout": "2d"},
            "fails on an input .*: correct layout, input_channels, divisor or dtype",
        ),
    ],
)
def test_a_network_that_does_not_fit_its_json_is_refused(
    network_file: Write, changes: dict[str, Any], said: str
) -> None:
    path = network_file(".pt", **changes)
    with pytest.raises(ScreenerError, match=said) as refused:
        FileDescriptor(path)
    assert f"{path} and encoder.json" in str(refused.value)


class Two(nn.Module):
    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return image, image


class Dropping(nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(image.expand(-1, 3, -1, -1, -1), training=True)


class Unbounded(nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image.expand(-1, 3, -1, -1, -1) / 0.0


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (Two(), "gives a tuple, and one tensor is needed"),
        (Dropping(), "something else the second time: export it in evaluation mode"),
        (Unbounded(), "gives values that are no finite numbers"),
    ],
)
def test_an_output_that_is_no_map_is_refused(
    network_file: Write, network: nn.Module, said: str
) -> None:
    path = network_file(".pt", strides=[1, 1, 1])
    torch.jit.save(torch.jit.script(network), path)
    with pytest.raises(ScreenerError, match=said):
        FileDescriptor(path)


def test_missing_files_are_named(network_file: Write, tmp_path: Path) -> None:
    with pytest.raises(ScreenerError, match="nothing.pt cannot be read .*: correct the path"):
        FileDescriptor(tmp_path / "nothing.pt")
    path = network_file(".pt")
    path.with_suffix(".json").unlink()
    with pytest.raises(
        ScreenerError, match="encoder.json cannot be read .* what the network expec"
    ):
        FileDescriptor(path)
