"""Fitting to rows that are held, and to scans that pass by."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from screener_nnu.densities import StandardisedDensity
from screener_nnu.densities.full_gaussian import FullGaussianDensity
from screener_nnu.errors import ScreenerError
from screener_nnu.trainers import fitting
from screener_nnu.trainers.fitting import (
    Coordinates,
    ScanRows,
    check_memory,
    fit_to_rows,
    fit_to_stream,
    rows_of_a_scan,
)

torch.set_num_threads(1)
ROWS, COLUMNS, CHANNELS, PICTURES = 9, 13, 5, 30


def picture(seed: int) -> ScanRows:
    """Descriptors that have a Gaussian of their own at each place; the corners lie outside."""
    random, fixed = np.random.default_rng(seed), np.random.default_rng(1)
    means = fixed.normal(size=(ROWS, COLUMNS, CHANNELS)) * 4 + 100
    mixing = fixed.normal(size=(ROWS, COLUMNS, CHANNELS, CHANNELS))
    y = means + np.einsum("rcd,rcde->rce", random.normal(size=means.shape), mixing)
    row, column = np.meshgrid(np.arange(ROWS), np.arange(COLUMNS), indexing="ij")
    c = np.stack([0 * row + 0.5, (row + 0.5) / ROWS, (column + 0.5) / COLUMNS], axis=-1)
    inside = (row + column > 2 + seed % 3) & (row + column < ROWS + COLUMNS - 4)
    return ScanRows(*(torch.tensor(m[inside]).float() for m in (y, c)))


def pictures() -> Iterator[ScanRows]:
    return (picture(seed) for seed in range(PICTURES))


def model(**settings: object) -> StandardisedDensity:
    options = {"bins": (1, 0, 0), "leaning": False, **settings}
    return StandardisedDensity(FullGaussianDensity(CHANNELS, 3, **options), 0.0).eval()  # type: ignore[arg-type]


def scores(fitted: StandardisedDensity, rows: ScanRows) -> np.ndarray:
    maps = (None if m is None else m.T[None, :, :, None, None] for m in rows)
    return fitted.log_prob(*maps).flatten().numpy()  # type: ignore[arg-type]


@pytest.mark.parametrize("covariance", ["full", "shared", "diagonal"])
@pytest.mark.parametrize("part", [1, 4000, 1 << 24])
def test_a_stream_of_scans_gives_what_all_rows_give(
    covariance: str, part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "_PART_NUMBERS", part)
    held, streamed = model(covariance=covariance), model(covariance=covariance)
    fit_to_rows(held, pictures(), torch.Generator())
    fit_to_stream(streamed, pictures)
    assert streamed.density.bin_counts.tolist() == [1, ROWS, COLUMNS]  # type: ignore[union-attr]
    new = picture(99)
    np.testing.assert_allclose(scores(streamed, new), scores(held, new), rtol=1e-5, atol=1e-4)
    states = held.state_dict(), streamed.state_dict()
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-4, atol=1e-5)


def test_padim_equals_explicit_mahalanobis_distances() -> None:
    """At 20 places, by NumPy from the descriptors as the network gives them."""
    padim = model(ridge=0.02)
    fit_to_stream(padim, pictures)
    together = np.concatenate([rows.y.double().numpy() for rows in pictures()])
    mean, deviation = together.mean(0), together.std(0)
    new = picture(99)
    density = padim.density
    assert isinstance(density, FullGaussianDensity)
    y = ((new.y.double().numpy() - mean) / deviation).astype(np.float32)
    c = (new.c - padim.c_mean) / padim.c_std  # type: ignore[operator]
    maps = (m.T[None, :, :, None, None] for m in (torch.tensor(y), c))
    found = density.mahalanobis(*maps).flatten().numpy()
    for place in np.random.default_rng(5).choice(len(y), 20, replace=False):
        at = new.c[place]  # type: ignore[index]
        rows = [r.y[(r.c == at).all(dim=1)].double().numpy() for r in pictures()]  # type: ignore[union-attr]
        own = (np.concatenate(rows) - mean) / deviation
        assert len(own) >= 10
        inverse = np.linalg.inv(np.cov(own.T) + 0.02 * np.eye(CHANNELS))
        gap = y[place] - own.mean(0)
        assert found[place] == pytest.approx(np.sqrt(gap @ inverse @ gap), rel=1e-4)


def test_without_places_it_needs_no_stream() -> None:
    assert model().streams and not model(bins=(1, 4, 4)).streams
    assert not StandardisedDensity(FullGaussianDensity(CHANNELS)).streams


def test_too_few_rows_and_values_that_are_no_numbers_are_refused() -> None:
    one = ScanRows(torch.ones(1, CHANNELS), torch.ones(1, 3))
    with pytest.raises(ScreenerError, match="1 positions are too few"):
        fit_to_stream(model(), lambda: [one])
    broken = ScanRows(torch.full((4, CHANNELS), float("nan")), torch.ones(4, 3))
    with pytest.raises(ScreenerError, match="no finite numbers"):
        fit_to_stream(model(), lambda: [picture(0), broken])


def test_coordinates_are_all_that_occur() -> None:
    found = Coordinates()
    assert found.table() is None
    found.add(None)
    for rows in pictures():
        found.add(rows.c)
    table = found.table()
    assert table is not None and table.shape == (COLUMNS, 3)
    whole = torch.cat([rows.c for rows in pictures()])  # type: ignore[misc]
    for mine, expected in zip(table.T, whole.T, strict=True):
        assert torch.equal(mine.unique(), expected.unique())


def test_what_a_density_takes_is_said_and_refused_where_memory_is_short(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """65 x 65 places of 250 channels: 4225 x 250^2 x 4 bytes."""
    large = StandardisedDensity(FullGaussianDensity(250, 3, bins=(1, 0, 0)))
    c = torch.arange(65.0)[:, None] * torch.tensor([0.0, 1.0, 1.0])
    caplog.set_level("INFO")
    monkeypatch.setattr(fitting, "free_memory", lambda: 4_000_000_000)
    check_memory(large, c)
    assert "the density takes 1.1 GB, and 3.2 GB while it is fitted" in caplog.messages
    monkeypatch.setattr(fitting, "free_memory", lambda: 2_000_000_000)
    with pytest.raises(ScreenerError, match="needs 3.2 GB of memory, and 2.0 GB are free.*shared"):
        check_memory(large, c)
    with pytest.raises(ScreenerError, match="needs 3.2 GB"):
        fit_to_stream(large, lambda: [ScanRows(torch.randn(65, 250), c)])
    monkeypatch.setattr(fitting, "free_memory", lambda: None)
    check_memory(large, c)
    caplog.clear()
    monkeypatch.setattr(fitting, "free_memory", lambda: 20_000_000)
    for covariance in ("shared", "diagonal"):
        options = {"bins": (1, 0, 0), "covariance": covariance}
        check_memory(StandardisedDensity(FullGaussianDensity(250, 3, **options)), c)  # type: ignore[arg-type]
    check_memory(StandardisedDensity(FullGaussianDensity(250)), None)
    assert not caplog.messages


def test_the_stated_memory_is_that_of_the_state() -> None:
    padim = model()
    fit_to_stream(padim, pictures)
    c = torch.cat([rows.c for rows in pictures()])  # type: ignore[misc]
    kept, _ = padim.state_bytes(c)
    state = padim.state_dict()["density.whitening"]
    filled = len(c.unique(dim=0))
    assert state.shape[0] == filled + 1 and kept == 4 * ROWS * COLUMNS * CHANNELS**2


def test_rows_that_are_held_are_bounded() -> None:
    assert rows_of_a_scan(200, 32) == 5000 and rows_of_a_scan(200, 1000) == 1250
    assert rows_of_a_scan(10**7, 32) == 1
