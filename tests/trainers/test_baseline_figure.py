"""The figure of a method leaves out the kinds of anomalies that it learns from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from screener_nnu.baselines import METHODS, method_class
from screener_nnu.synthetic.anomalies import KINDS


@pytest.mark.parametrize("name", METHODS)
def test_kinds_of_a_method_are_known(name: str) -> None:
    assert set(method_class(name).resembles) < set(KINDS)


def test_kinds_that_a_method_learns_from_do_not_choose_its_epoch(world: Any) -> None:
    trainer = world.trainer("baseline", "baseline.method=mood")
    trainer.check.prepare()
    figure = trainer.validation_figure()
    terms = trainer.validation_terms
    assert "pasted" in terms
    others = [terms[kind] for kind in trainer.check.kinds if kind != "pasted"]
    assert figure == terms["mean"] == pytest.approx(np.mean(others))
    found = trainer.check.auroc(trainer.detector.score, torch.device("cpu"))
    assert found["mean"] == pytest.approx(np.mean([found[k] for k in trainer.check.kinds]))
    assert found["mean"] != pytest.approx(figure)
    # Where there are no others, those that there are count.
    trainer.check.kinds = ("pasted",)
    assert trainer.validation_figure() == pytest.approx(terms["pasted"])
