"""Batch normalisation by the samples of all processes of a training."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

_LAYERS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def synchronised(network: nn.Module, on_gpus: bool) -> nn.Module:
    """The network with batch statistics of all processes.

    On processors that is done for torch's own layers alone, and not for those of timm, which hold
    an activation, too.

    Args:
        network: changed in place, or its first layer replaced.
        on_gpus: whether it is trained there.
    """
    if on_gpus:
        # torch's own drops the activations that networks of timm have in their normalisation.
        from timm.layers import convert_sync_batchnorm

        converted: nn.Module = convert_sync_batchnorm(network)
        return converted
    if type(network) in _LAYERS:
        return JointBatchNorm.like(network)  # type: ignore[arg-type]
    for name, child in network.named_children():
        setattr(network, name, synchronised(child, on_gpus))
    return network


class JointBatchNorm(_BatchNorm):
    """Batch normalisation (Ioffe and Szegedy, 2015) over processes; torch's own needs GPUs.

    Processes may have different numbers of samples. Gradients are those of the sum of the losses
    of all processes.
    """

    @classmethod
    def like(cls, layer: _BatchNorm) -> JointBatchNorm:
        """The same layer, with its very parameters and statistics."""
        joint = cls(
            layer.num_features,
            layer.eps,
            layer.momentum,
            layer.affine,
            layer.track_running_stats,
        )
        joint.training = layer.training
        for name, value in layer.named_parameters():
            setattr(joint, name, value)
        for name, buffer in layer.named_buffers():
            setattr(joint, name, buffer)
        return joint

    def _check_input_dim(self, input: torch.Tensor) -> None:  # noqa: A002 - torch's name
        pass

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Normalised values (n, C, ...) of this process."""
        if not self.training:
            return super().forward(values)
        from torch.distributed.nn.functional import all_reduce

        axes = [axis for axis in range(values.ndim) if axis != 1]
        shape = [1, -1] + [1] * (values.ndim - 2)
        rows = values.float()
        count = torch.tensor(rows.numel() / rows.shape[1])
        dist.all_reduce(count)
        mean = all_reduce(rows.sum(axes)) / count
        centred = rows - mean.view(shape)
        variance = all_reduce(centred.square().sum(axes)) / count
        self._remember(mean.detach(), variance.detach() * (count / (count - 1)))
        normalised = centred / (variance + self.eps).sqrt().view(shape)
        if self.affine:
            normalised = normalised * self.weight.view(shape) + self.bias.view(shape)
        return normalised.to(values.dtype)

    @torch.no_grad()
    def _remember(self, mean: torch.Tensor, variance: torch.Tensor) -> None:
        """Updates what evaluation normalises by."""
        if (
            self.running_mean is None
            or self.running_var is None
            or self.num_batches_tracked is None
        ):
            return
        self.num_batches_tracked += 1
        factor = self.momentum or 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, factor)
        self.running_var.lerp_(variance, factor)
