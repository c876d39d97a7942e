"""What every density that is fitted in one pass keeps to, whichever it is."""

import inspect
import io
from dataclasses import fields

import numpy as np
import pytest
import torch

from screener_nnu.densities import DENSITIES, StandardisedDensity, build_density
from screener_nnu.densities import fitted as fitted_module
from screener_nnu.errors import ScreenerError
from screener_nnu.plans import DensitySettings, OptimiserSettings

torch.set_num_threads(1)

FITTED = sorted(name for name, kind in DENSITIES.items() if kind.fitted)
every = pytest.mark.parametrize("name", FITTED)


def sample(count, seed=0):
    random = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(6, 6))
    return torch.tensor(random.normal(size=(count, 6)) @ mixing / 2).float()


def fitted(name, rows, seed=0):
    density = build_density(name, rows.shape[1], 0)
    density.fit(rows, None, torch.Generator().manual_seed(seed))
    return density


def as_map(rows):
    return rows.T[None, :, :, None, None]


def scores(density, rows):
    return density.log_prob(as_map(rows)).flatten()


def plan(name, **options):
    optimiser = OptimiserSettings(steps=1, steps_per_epoch=1, warmup_steps=0)
    return DensitySettings(optimiser, (1, 1, 1), (8, 8, 8), kind=name, options=options)


def test_there_are_some():
    assert {"full_gaussian", "gaussian_pca", "knn"} <= set(FITTED)


@every
def test_map_equals_rows(name):
    density = fitted(name, sample(200))
    rows = sample(2 * 3 * 4 * 5, seed=1)
    maps = rows.view(2, 3, 4, 5, 6).movedim(-1, 1)
    actual = density.log_prob(maps)
    assert actual.shape == (2, 3, 4, 5) and actual.dtype == torch.float32
    torch.testing.assert_close(actual.flatten(), scores(density, rows), rtol=1e-5, atol=1e-4)
    # An axis in the wrong place would show.
    assert actual.flatten().unique().numel() > 100


@every
def test_row_alone_equals_row_in_a_batch(name, monkeypatch):
    density = fitted(name, sample(200))
    rows = sample(100, seed=1)
    expected = scores(density, rows)
    alone = torch.cat([scores(density, row[None]) for row in rows])
    torch.testing.assert_close(alone, expected, rtol=1e-5, atol=1e-4)
    monkeypatch.setattr(fitted_module, "_ROWS", 7)
    torch.testing.assert_close(scores(density, rows), expected, rtol=1e-5, atol=1e-4)


@every
def test_learns_nothing_by_gradient_and_has_one_mode(name):
    density = fitted(name, sample(200))
    rows = sample(20, seed=1)
    assert not list(density.parameters())
    trained, evaluated = (scores(density.train(mode), rows) for mode in (True, False))
    assert torch.equal(trained, evaluated) and not trained.requires_grad
    # Descriptors may still be part of a graph.
    assert torch.equal(scores(density, rows.clone().requires_grad_()).detach(), trained)


@every
def test_prefers_what_it_was_fitted_to(name):
    density = fitted(name, sample(500))
    held_out, shifted = sample(200, seed=1), sample(200, seed=1) + 4
    assert (scores(density, shifted) < scores(density, held_out)).float().mean() > 0.95


@every
def test_far_rows_score_lower_and_lower(name):
    rows = sample(200)
    far = torch.stack([rows[0] + step * rows.std(0) for step in (0.0, 10.0, 100.0)])
    values = scores(fitted(name, rows), far)
    assert values.isfinite().all() and (values.diff() < 0).all()


@every
def test_travels_through_a_file_to_a_density_of_another_size(name):
    density = fitted(name, sample(200))
    rows = sample(50, seed=1)
    file = io.BytesIO()
    torch.save(StandardisedDensity(density).state_dict(), file)
    for other in (build_density(name, 6, 0), fitted(name, sample(37, seed=5))):
        file.seek(0)
        state = torch.load(file, weights_only=True)
        StandardisedDensity(other).load_state_dict(state)
        assert other.initialised
        assert torch.equal(scores(other, rows), scores(density, rows))


@every
def test_equal_seeds_give_equal_states_and_a_second_fit_starts_anew(name):
    first, again = fitted(name, sample(200), 3), fitted(name, sample(50, seed=2), 4)
    again.fit(sample(200), None, torch.Generator().manual_seed(3))
    assert first.state_dict().keys() == again.state_dict().keys()
    for key, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key


@every
def test_copies_constant_columns_and_few_rows(name):
    rows = sample(12).repeat(3, 1)
    rows[:, 2] = 0.5
    assert scores(fitted(name, rows), sample(20, seed=1)).isfinite().all()
    density = build_density(name, 6, 0)
    few = sample(max(5, density.least_rows))
    assert scores(fitted(name, few), sample(20, seed=1)).isfinite().all()


@every
def test_half_maps_under_autocast_are_scored_in_float32(name):
    density = fitted(name, sample(200))
    rows = sample(30, seed=1).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = scores(density, rows)
        again = fitted(name, sample(200))
    assert actual.dtype == torch.float32
    assert torch.equal(actual, scores(density, rows.float()))
    assert torch.equal(scores(again, rows), actual)


@every
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_refuses_rows_that_are_no_numbers(name, value):
    rows = sample(200)
    rows[17, 3] = value
    with pytest.raises(ScreenerError, match="no finite numbers"):
        fitted(name, rows)


@every
def test_refuses_too_few_rows_in_a_sentence(name):
    least = build_density(name, 6, 0).least_rows
    for count in {0, 1, least - 1}:
        with pytest.raises(ScreenerError, match=f"{count} positions are too few.*{least}"):
            fitted(name, sample(count))
    assert fitted(name, sample(max(2, least))).initialised


@every
def test_refuses_rows_and_maps_of_another_width(name):
    density = build_density(name, 6, 0)
    with pytest.raises(ValueError, match="must be"):
        density.fit(torch.zeros(50, 5), None, torch.Generator())
    with pytest.raises(ValueError, match="must be"):
        fitted(name, sample(200)).log_prob(torch.zeros(1, 5, 2, 2, 2))


@every
def test_a_plan_without_options_gives_the_defaults(name):
    kind = DENSITIES[name]
    arguments = inspect.signature(kind).parameters
    defaults = kind.options(plan(name))
    assert list(defaults) == [field.name for field in fields(kind.Settings)]
    for key in arguments.keys() & defaults.keys():
        assert arguments[key].default == defaults[key], key
    assert type(kind(6, 0, **defaults)) is kind
    assert type(kind.of_plan(6, 0, plan(name))) is kind


@every
def test_refuses_settings_outside_their_limits_by_name(name):
    kind = DENSITIES[name]
    for field in fields(kind.Settings):
        wrong = [-1, None] + (["spline"] if isinstance(field.default, str) else [])
        for value in wrong:
            with pytest.raises(ScreenerError, match=rf"density\.options\.{field.name} "):
                kind.of_plan(6, 0, plan(name, **{field.name: value}))
    with pytest.raises(ScreenerError, match="no_such_setting"):
        kind.of_plan(6, 0, plan(name, no_such_setting=1))
