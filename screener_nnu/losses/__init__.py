"""Dense self-supervised objectives on pairs of sampled voxel vectors."""

from collections.abc import Callable

from torch import nn

from screener_nnu.errors import ScreenerError
from screener_nnu.losses.infonce import DenseInfoNCE
from screener_nnu.losses.vicreg import DenseVICReg
from screener_nnu.plans import ContrastSettings


def _vicreg(settings: ContrastSettings) -> nn.Module:
    return DenseVICReg(*settings.vicreg_weights, view_reduction=settings.view_reduction)


def _infonce(settings: ContrastSettings) -> nn.Module:
    return DenseInfoNCE(settings.temperature)


#: What makes an objective from its settings, by the name that a plan uses.
LOSSES: dict[str, Callable[[ContrastSettings], nn.Module]] = {
    "vicreg": _vicreg,
    "infonce": _infonce,
}


def build_loss(settings: ContrastSettings) -> nn.Module:
    """The objective of a dense self-supervised stage.

    Raises:
        ScreenerError: an unknown name, or a setting that the objective refuses.
    """
    if settings.loss not in LOSSES:
        raise ScreenerError(f"no loss '{settings.loss}'; known: {', '.join(LOSSES)}")
    try:
        return LOSSES[settings.loss](settings)
    except ValueError as error:
        raise ScreenerError(f"settings of the loss '{settings.loss}': {error}") from error


__all__ = ["LOSSES", "DenseInfoNCE", "DenseVICReg", "build_loss"]
