"""Heads between the descriptor map and a dense loss; used in training, then thrown away."""

from torch import Tensor, nn

from screener_nnu.errors import ScreenerError


def _mlp(in_channels: int, hidden: int, out_channels: int, hidden_layers: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    width = in_channels
    for _ in range(hidden_layers):
        # A bias before a batch norm is subtracted again, so it would never learn.
        layers += [nn.Linear(width, hidden, bias=False), nn.BatchNorm1d(hidden), nn.GELU()]
        width = hidden
    layers.append(nn.Linear(width, out_channels, bias=False))
    return nn.Sequential(*layers)


class Expander(nn.Module):
    """MLP w-w-w that lifts voxel descriptors to the space where DenseVICReg is computed.

    Batch norm, not layer norm, between the layers: its statistics run over thousands of sampled
    voxels of several scans, so a hidden unit that is the same everywhere (the collapse that VICReg
    fights) is rescaled rather than passed on, and the channels of one voxel are not tied to each
    other. The usual objection, a prediction that depends on its batch, does not arise: the head
    never takes part in prediction. The last layer has no bias, for VICReg ignores a common shift.

    References:
        Bardes, Ponce and LeCun, VICReg, ICLR 2022, section 4.2 (https://arxiv.org/abs/2105.04906).

    Args:
        in_channels: channels d of the descriptor map.
        width: of every layer, the output included; the paper's scale is 8192.
        hidden_layers: layers with batch norm and GELU before the last, linear one.
    """

    def __init__(self, in_channels: int, width: int = 8192, hidden_layers: int = 2) -> None:
        """Builds the layers."""
        super().__init__()
        self.out_channels = width
        self.layers = _mlp(in_channels, width, width, hidden_layers)

    def forward(self, voxels: Tensor) -> Tensor:
        """Maps sampled voxel vectors (N, d) to (N, width); in training N must be at least 2."""
        return self.layers(voxels)


class Projector(nn.Module):
    """MLP h-h-o that maps voxel descriptors to the space where DenseInfoNCE is computed.

    Batch norm for the reasons given in `Expander`. Lengths are left as they are, since the loss
    normalises them.

    References:
        Chen et al., A Simple Framework for Contrastive Learning of Visual Representations,
        ICML 2020, section 4.2 (https://arxiv.org/abs/2002.05709).

    Args:
        in_channels: channels d of the descriptor map.
        hidden: width of the hidden layers.
        out_channels: width of the output.
        hidden_layers: layers with batch norm and GELU before the last, linear one.
    """

    def __init__(
        self,
        in_channels: int,
        hidden: int = 2048,
        out_channels: int = 128,
        hidden_layers: int = 2,
    ) -> None:
        """Builds the layers."""
        super().__init__()
        self.out_channels = out_channels
        self.layers = _mlp(in_channels, hidden, out_channels, hidden_layers)

    def forward(self, voxels: Tensor) -> Tensor:
        """Maps sampled voxel vectors (N, d) to (N, out_channels); in training N >= 2."""
        return self.layers(voxels)


def build_head(loss_name: str, in_channels: int, width: int) -> Expander | Projector:
    """Builds the head that belongs to a loss.

    Args:
        loss_name: `vicreg` (an `Expander` of that width) or `infonce` (a `Projector` of that hidden
            width, at most 2048, and at most 128 outputs).
        in_channels: channels d of the descriptor map.
        width: of the head.

    Raises:
        ScreenerError: no head is known for that loss.
    """
    if loss_name == "vicreg":
        return Expander(in_channels, width)
    if loss_name == "infonce":
        return Projector(in_channels, hidden=min(2048, width), out_channels=min(128, width))
    raise ScreenerError(f"no head is known for the loss '{loss_name}'; known: infonce, vicreg")
