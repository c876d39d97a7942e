"""The other side of an adversarial loss: critics that learn from what auto-encoders made."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from screener_nnu.losses.igd import critic_loss, smoothed_reconstruction
from screener_nnu.networks.igd import Critics, Decoded


class CriticTraining:
    """Critics with an optimiser of their own, which take a step after the auto-encoders.

    Args:
        critics: on their device.
        optimiser: of them.
        autocast: gives the mixed precision of networks.
        rank: of this process, None where there is one.
    """

    def __init__(
        self,
        critics: Critics,
        optimiser: torch.optim.Optimizer,
        autocast: Callable[[], torch.autocast],
        rank: int | None = None,
    ) -> None:
        """Wraps the critics where there are several processes."""
        self.critics, self.optimiser, self.autocast = critics, optimiser, autocast
        self.network: nn.Module = critics
        if rank is not None:
            on_gpu = next(critics.parameters()).is_cuda
            self.network = DistributedDataParallel(critics, device_ids=[rank] if on_gpu else None)
        self._seen: dict[str, torch.Tensor] = {}
        self._shares: Mapping[str, torch.Tensor] = {}

    def guesses(self, name: str, images: torch.Tensor) -> torch.Tensor:
        """Guesses (B,) about images, through which a gradient reaches these alone."""
        self.critics.requires_grad_(False)
        with self.autocast():
            found: torch.Tensor = self.critics[name](images)
        self.critics.requires_grad_(True)
        return found

    def keep(
        self,
        images: Mapping[str, torch.Tensor],
        decoded: Mapping[str, Decoded],
        shares: Mapping[str, torch.Tensor],
    ) -> None:
        """Keeps what the next step learns from, without a gradient.

        Args:
            images: (B, C, D, H, W) by model.
            decoded: what it made of them.
            shares: (B,) of mixtures by model; none where there is nothing to learn.
        """
        self._shares, self._seen = shares, {}
        for name in shares:
            mixed = decoded[name].mixed
            assert mixed is not None
            unmixed = smoothed_reconstruction(images[name], decoded[name].images)
            self._seen[name] = torch.cat([mixed, unmixed]).detach()

    def step(self, rate: float, scaler: torch.amp.GradScaler | None) -> dict[str, torch.Tensor]:
        """One step of the optimiser at a learning rate, on what was kept.

        Returns:
            The loss of each critic.
        """
        if not self._seen:
            return {}
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        with self.autocast():
            guesses = self.network(self._seen)
        losses = {}
        for name, of_model in guesses.items():
            mixed, unmixed = of_model.chunk(2)
            losses[f"{name} critic"] = critic_loss(mixed, self._shares[name], unmixed).mean()
        total = torch.stack(list(losses.values())).sum()
        if scaler is None:
            total.backward()
            self.optimiser.step()
        else:
            scaler.scale(total).backward()
            scaler.step(self.optimiser)
            scaler.update()
        return {key: loss.detach() for key, loss in losses.items()}
