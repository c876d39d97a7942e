"""Settings of the optimiser of every stage that learns by gradient."""

from __future__ import annotations

from dataclasses import dataclass

from screener_nnu.setting_values import Count, CountOrNone, NotNegative, Positive


@dataclass(frozen=True)
class OptimiserSettings:
    """Rates and lengths of a stage's optimiser, counted in steps.

    By default it is AdamW with linear warm-up and cosine decay to zero (paper, Appendix).
    """

    steps: Count
    steps_per_epoch: Count
    warmup_steps: CountOrNone
    learning_rate: Positive = 3e-4
    weight_decay: NotNegative = 1e-6
    eps: Positive = 1e-3
    clip_norm: Positive = 1.0

    def __post_init__(self) -> None:
        """Refuses a warm-up that never ends."""
        if self.warmup_steps > self.steps:
            raise ValueError(
                f"warmup_steps must be at most steps ({self.steps}), but is {self.warmup_steps}"
            )
