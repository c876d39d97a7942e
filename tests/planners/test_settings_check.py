"""A plan that a later stage cannot be trained with is refused by the first one."""

from __future__ import annotations

from typing import Any

import pytest

from screener_nnu.errors import ScreenerError


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("descriptor.loss=simclr", "descriptor.loss must be one of vicreg, infonce, but is"),
        ("condition.contrast.loss=simclr", "condition.contrast.loss must be one of"),
        ("condition.kind=nearest", "condition.kind must be one of none, sincos"),
        ("density.kind=histogram", "density.kind must be one of gaussian, flow.*but is"),
        ("crop_size=[12, 16, 15]", r"crop_size \[12, 16, 15\] must be a multiple of"),
        ("distillation.crop_size=[12, 15, 16]", "distillation.crop_size .* a multiple of"),
    ],
)
def test_settings_of_every_stage_are_checked_by_the_first(
    world: Any, setting: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ScreenerError, match=message):
        world.trainer("descriptor", setting)
    with pytest.raises(SystemExit) as end:
        world.train("chain", "-p", "Odd", "-o", setting)
    assert end.value.code == 1
    assert setting.partition("=")[0] in capsys.readouterr().err


@pytest.mark.parametrize("use", ["train", "validation"])
def test_a_plan_without_scans_of_a_use_is_refused(world: Any, use: str) -> None:
    trainer = world.trainer("descriptor", f"split.{use}=[]")
    with pytest.raises(ScreenerError, match="names no (validation )?scans"):
        trainer.on_train_start()
