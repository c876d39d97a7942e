from __future__ import annotations

import pytest
import torch

from screener_nnu.devices import available_cores, choose_device
from screener_nnu.errors import ScreenerError


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_absent_device_is_refused() -> None:
    with pytest.raises(ScreenerError, match="-device cpu"):
        choose_device("cuda")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_the_cpu_is_taken_where_nothing_else_is() -> None:
    assert choose_device(None).type == "cpu"


def test_threads_follow_the_cores_unless_the_user_set_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = torch.get_num_threads()
    try:
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        torch.set_num_threads(1)
        choose_device("cpu")
        assert torch.get_num_threads() == 1
        monkeypatch.delenv("OMP_NUM_THREADS")
        choose_device("cpu")
        assert torch.get_num_threads() == available_cores()
    finally:
        torch.set_num_threads(before)
