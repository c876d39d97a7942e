"""A head on frozen features: the network, what is drawn, and how it is fitted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from sklearn.linear_model import LogisticRegression

from screener_nnu.errors import ScreenerError
from screener_nnu.finetuning.checkpoint import load_weights, read_checkpoint
from screener_nnu.finetuning.plan import read_source_plan, target_plan
from screener_nnu.finetuning.probe import (
    Voxels,
    cut,
    draw_corner,
    draw_places,
    fit_head,
    weights_of,
)
from screener_nnu.finetuning.settings import FineTuningSettings, ProbeSettings
from screener_nnu.finetuning.starts import find_start, make_start
from screener_nnu.networks.probed import ProbedUNet, backbone_of

_STAGES = {"kernel_sizes": 3, "n_stages": 3, "features_per_stage": [4, 6, 8], "strides": [1, 2, 2]}


def network(dimensions: int, classes: int = 3) -> ProbedUNet:
    """A small one of pictures or volumes."""
    volumes = dimensions == 3
    arguments: dict[str, Any] = {
        **_STAGES,
        "n_conv_per_stage": 1,
        "n_conv_per_stage_decoder": 1,
        "conv_op": torch.nn.Conv3d if volumes else torch.nn.Conv2d,
        "norm_op": torch.nn.InstanceNorm3d if volumes else torch.nn.InstanceNorm2d,
        "nonlin": torch.nn.LeakyReLU,
    }
    unet = "dynamic_network_architectures.architectures.unet.PlainConvUNet"
    torch.manual_seed(0)
    return ProbedUNet(1, classes, unet, hidden=5, **arguments).eval()


@pytest.mark.parametrize("dimensions", [2, 3])
def test_logits_are_those_of_the_perceptron_at_each_voxel(dimensions: int) -> None:
    made = network(dimensions)
    torch.manual_seed(1)
    first, last = torch.nn.Linear(sum(made.widths), 5), torch.nn.Linear(5, 3)
    made.set_head(first, last)
    image = torch.randn(1, 1, *[16] * dimensions)
    places = torch.randperm(16**dimensions)[:50]
    features = made.features(image, places)
    assert features.shape == (50, sum(made.widths)) and made.widths == (4, 6, 8, 4, 6)
    with torch.no_grad():
        expected = last(torch.nn.functional.gelu(first(features)))
        found = made(image)[0].flatten(1)[:, places].T
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    # The finest stages are seen as they are, coarser ones between their voxels.
    finest = made.unet.encoder(image)[0][0].flatten(1)[:, places].T
    torch.testing.assert_close(features[:, :4], finest)


def test_nnunet_builds_it_from_the_plan_and_only_the_head_learns(world: Any) -> None:
    source = read_source_plan("Dataset901_Trunk", "ScreenerPlans")
    start = find_start("student:probe", "Dataset901_Trunk", "ScreenerPlans", source, ["hidden=7"])
    assert start.trainer == "ProbeTrainer" and start.name.startswith("student-probe-")
    plan = target_plan(
        source,
        source="Dataset901_Trunk",
        target="Dataset502_Lesions",
        start=start.name,
        reader="SimpleITKIO",
        tuned=start.tuned,
    )
    block = plan.architecture
    made = get_network_from_plans(
        block["network_class_name"],
        block["arch_kwargs"],
        block["_kw_requires_import"],
        1,
        2,
        deep_supervision=True,
    )
    assert isinstance(made, ProbedUNet) and made(torch.zeros(1, 1, 16, 16, 16)).shape[1] == 2
    load_weights(made, start.weights)
    weights = read_checkpoint(start.weights)["network_weights"]
    loaded = backbone_of(made).state_dict()
    same = [k for k in loaded if ".seg_layers." not in k]
    assert same and all(torch.equal(loaded[k], weights[k]) for k in same)
    learning = {name.split(".")[0] for name, p in made.named_parameters() if p.requires_grad}
    assert learning == {"lifts", "bias", "out"}
    assert ProbeSettings.of_plan(plan.to_dict()).hidden == 7


def test_patches_lie_in_the_scan_or_hold_it() -> None:
    rng = np.random.default_rng(0)
    labels = np.zeros((20, 6, 30), np.int8)
    labels[3, 2, 4], labels[15:, :, 20:] = 2, 1
    hits = {1: 0, 2: 0}
    for _ in range(200):
        corner = draw_corner(labels.shape, (8, 8, 8), labels, rng, around=True)
        seen = cut(labels, corner, (8, 8, 8))
        assert seen.any() and corner[1] == -1
        assert 0 <= corner[0] <= 12 and 0 <= corner[2] <= 22
        for label in hits:
            hits[label] += bool((seen == label).any())
        inside = cut(np.ones(labels.shape, bool), corner, (8, 8, 8))
        assert inside.sum() == 8 * 6 * 8 and not inside[:, 0].any() and not inside[:, 7].any()
    # A rare class is as likely as a frequent one.
    assert min(hits.values()) > 70
    anywhere = [draw_corner((20, 6, 30), (8, 8, 8), labels, rng, False)[0] for _ in range(300)]
    assert (min(anywhere), max(anywhere)) == (0, 12)


def test_voxels_are_drawn_of_each_label_and_weigh_what_they_stand_for() -> None:
    rng = np.random.default_rng(0)
    labels = np.zeros((10, 10, 10), int)
    labels[:1], labels[1, 0, :4], labels[9] = 1, 2, 3
    inside = labels != 3  # unknown
    places = draw_places(labels, inside, 50, rng)
    drawn = labels.ravel()[places]
    assert len(np.unique(places)) == len(places)
    assert {int(v): int((drawn == v).sum()) for v in np.unique(drawn)} == {0: 50, 1: 50, 2: 4}
    weights = weights_of(drawn, {0: 9000, 1: 900, 2: 90})
    assert weights.mean() == pytest.approx(1)
    sums = [weights[drawn == label].sum() for label in range(3)]
    np.testing.assert_allclose(np.divide(sums, sums[2]), [100, 10, 1])
    assert draw_places(labels, np.zeros_like(inside), 5, rng).size == 0


def test_a_head_is_as_good_as_logistic_regression_where_that_is_right() -> None:
    """Two Gaussians, features of other scales: Dice, and odds as in the scans, not the draw."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 3000)
    features = rng.normal(size=(6000, 6)) + labels[:, None] * [1.5, 0, 0, 1, 0, 0]
    features = features * [1, 100, 0.01, 5, 1, 1] + [0, 500, 3, 0, 0, 0]
    weights = weights_of(labels, {0: 9000, 1: 1000})
    voxels = Voxels(
        torch.from_numpy(features).float(),
        torch.nn.functional.one_hot(torch.from_numpy(labels), 2).float(),
        torch.from_numpy(weights).float(),
    )
    settings = replace(ProbeSettings(), steps=200, batch=2048)
    first, last = fit_head(voxels, settings, exclusive=True, seed=0)
    same = fit_head(voxels, settings, exclusive=True, seed=0)
    torch.testing.assert_close(same[0].weight, first.weight)
    test_labels = (rng.random(20000) < 0.1).astype(int)
    test = rng.normal(size=(20000, 6)) + test_labels[:, None] * [1.5, 0, 0, 1, 0, 0]
    test = test * [1, 100, 0.01, 5, 1, 1] + [0, 500, 3, 0, 0, 0]
    with torch.no_grad():
        logits = last(torch.nn.functional.gelu(first(torch.from_numpy(test).float())))
    scale = features.std(0)
    oracle = LogisticRegression().fit(features / scale, labels, sample_weight=weights)

    def dice(found: np.ndarray) -> float:
        return float(2 * (found & (test_labels == 1)).sum() / (found.sum() + test_labels.sum()))

    # Soft Dice moves the threshold towards more foreground; it may not be worse for that.
    own = dice(logits.argmax(1).numpy() == 1)
    assert own > dice(oracle.predict(test / scale) == 1) - 0.02
    apart = logits[:, 1] - logits[:, 0]
    order = np.corrcoef(apart.numpy(), oracle.decision_function(test / scale))[0, 1]
    assert order > 0.97


def test_regions_may_overlap() -> None:
    rng = np.random.default_rng(1)
    features = rng.uniform(-1, 1, size=(4000, 2))
    targets = np.stack([features[:, 0] > -0.5, features[:, 0] > 0.5], 1)
    voxels = Voxels(
        torch.from_numpy(features).float(), torch.from_numpy(targets).float(), torch.ones(4000)
    )
    first, last = fit_head(voxels, replace(ProbeSettings(), steps=300), exclusive=False, seed=0)
    with torch.no_grad():
        found = last(torch.nn.functional.gelu(first(voxels.features))) > 0
    assert (found.numpy() == targets).mean() > 0.97


def test_settings_go_to_the_trainer_that_has_them() -> None:
    words = ["hidden=8", "frozen=0.1"]
    probe, tuned = (make_start("student", None, word, words).tuned for word in ("probe", "tuned"))
    assert probe == ProbeSettings(hidden=8) and tuned == FineTuningSettings(frozen=0.1)
    for word in ("hidden=0", "dropout=1.0", "learning_rate=0.0", "hidden=1.5"):
        with pytest.raises(ScreenerError):
            make_start("student", None, "probe", [word])
