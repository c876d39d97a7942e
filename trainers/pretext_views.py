"""Changed images of all classes and their weak views, on the device."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from screener_nnu.plans import Plan
from screener_nnu.pretext_settings import MethodSettings
from screener_nnu.sampling.views import patches_left, weak_views
from screener_nnu.synthetic.shifts import SHIFTS


class Images(NamedTuple):
    """A batch on the device.

    Attributes:
        images: (B, C, D, H, W) in [0, 1].
        bodies: (B, D, H, W), bool.
        neighbours: (B, C, D, H, W), patches beside the images of a local model.
        directions: (B,), where they lie; None without them.
    """

    images: torch.Tensor
    bodies: torch.Tensor
    neighbours: torch.Tensor | None
    directions: torch.Tensor | None


class Drawn(NamedTuple):
    """What is known of views beside their classes.

    Attributes:
        labels: (N,), how the image was changed; a class may be another after cropping.
        sources: (N,), the same for the two views of a changed image.
        pasted: mean part of the changed images that was changed; None without changes.
    """

    labels: torch.Tensor
    sources: torch.Tensor
    pasted: torch.Tensor | None


@dataclass(frozen=True)
class ClassViews:
    """Makes the views of a step.

    Attributes:
        plan: with the settings of patches and views.
        method: which classes there are.
    """

    plan: Plan
    method: MethodSettings

    def changed(
        self, batch: Images, label: int, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Images of a class (B, C, D, H, W), and what was changed (B, 1, D, H, W)."""
        medmix = self.plan.settings.pretext.medmix
        shift = SHIFTS[self.method.shift]
        return shift(batch.images, batch.bodies, label, generator, medmix)

    def weak(
        self, images: torch.Tensor, generator: torch.Generator, masks: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """One weak view of each image."""
        settings = self.plan.settings
        views = SHIFTS[self.method.shift].views(settings.pretext.views)
        spacing = settings.preprocessing.spacing
        return weak_views(images, generator, views, settings.jitter, spacing, masks)

    def draw(
        self, batch: Images, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor, Drawn]:
        """Two views (2 B classes, C, D, H, W) of each class, and their classes, a row each."""
        count, device = len(batch.images), batch.images.device
        relabels = (
            self.plan.settings.pretext.relabel_after_crop and SHIFTS[self.method.shift].of_patches
        )
        views, classes, pasted = [], [], []
        for label in range(self.method.classes):
            changed, masks = self.changed(batch, label, generator)
            if label:
                pasted.append((masks > 0).float().mean())
            for _ in range(2):
                view, left = changed, None
                if self.method.weak_views:
                    view, left = self.weak(changed, generator, masks if relabels else None)
                views.append(view)
                found = torch.full((count,), label, device=device)
                if left is not None:
                    found = patches_left(masks, left, label)
                classes.append(found)
        labels = torch.arange(self.method.classes, device=device).repeat_interleave(2 * count)
        image = torch.arange(count, device=device).repeat(2 * self.method.classes)
        part = torch.stack(pasted).mean() if pasted else None
        drawn = Drawn(labels, labels * count + image, part)
        return torch.cat(views), torch.cat(classes), drawn

    def pairs(self, batch: Images, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """A patch and its neighbour, both cropped and not mirrored, which would change sides."""
        assert batch.neighbours is not None
        settings = self.plan.settings
        cropped = replace(settings.pretext.views, flip=0.0, jitter=0.0, grey=0.0, blur=0.0)
        plain = replace(settings.jitter, probability=0.0)
        spacing = settings.preprocessing.spacing
        first, second = (
            weak_views(patches, generator, cropped, plain, spacing)[0]
            for patches in (batch.images, batch.neighbours)
        )
        return first, second
