"""Whether image-level pre-training tells changed images from unchanged ones; it needs no label."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score

from screener_nnu.pretext_settings import METHODS
from screener_nnu.sampling.randomness import torch_generator
from screener_nnu.trainers.pretext_views import ClassViews

if TYPE_CHECKING:
    from screener_nnu.trainers.pmsacl import PretextTrainer

# Held-out images, and training images whose features they are compared with.
_IMAGES, _REFERENCES = 64, 64
_NEIGHBOURS = 2


@torch.no_grad()
def changed_images_auroc(trainer: PretextTrainer) -> tuple[float, dict[str, float]]:
    """The figure, and the accuracy of the classifier beside it where there is one.

    Images of every class of the method, of one without changes those of MedMix, are scored by the
    classifier's 1 - p(class 0), or without a classifier by the mean distance of their features to
    the two nearest of training images.

    Args:
        trainer: whose model is measured, in evaluation mode, on fixed draws.
    """
    trainer.model.eval()
    method = trainer.method
    changes = METHODS["pmsacl"] if method.classes == 1 else method
    views = ClassViews(trainer.plan, changes)
    classifies = method.classify != "none"
    references = None if classifies else _references(trainer)
    scores: list[torch.Tensor] = []
    labels: list[int] = []
    hits: list[torch.Tensor] = []
    held_out = trainer.settings.split.validation
    for number, batch in enumerate(trainer.fixed_batches(held_out, "validation", _IMAGES)):
        generator = torch_generator(
            trainer.device, trainer.settings.seed, f"{trainer.stage} validation", number
        )
        for label in range(changes.classes):
            changed, _ = views.changed(batch, label, generator)
            with trainer.autocast():
                found = trainer.model(changed)
            if references is None:
                chances = found.logits.float().softmax(1)
                scores.append(1 - chances[:, 0])
                hits.append((chances.argmax(1) == label).float())
            else:
                scores.append(_distance(_rows(trainer, found.features), references))
            labels += [int(label > 0)] * len(changed)
    figure = float(roc_auc_score(labels, torch.cat(scores).cpu().numpy()))
    return figure, {"accuracy": float(torch.cat(hits).mean())} if hits else {}


def _references(trainer: PretextTrainer) -> torch.Tensor:
    rows, names = [], trainer.settings.split.presumed_normal
    for batch in trainer.fixed_batches(names, "references", _REFERENCES):
        with trainer.autocast():
            rows.append(_rows(trainer, trainer.model(batch.images).features))
    return torch.cat(rows)


def _rows(trainer: PretextTrainer, features: torch.Tensor) -> torch.Tensor:
    """Features as they are compared: a contrast of angles says nothing about lengths."""
    plain = trainer.method.contrast == "none"
    return features.float() if plain else F.normalize(features.float(), dim=1)


def _distance(rows: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
    nearest = torch.cdist(rows, references).topk(_NEIGHBOURS, largest=False).values
    return nearest.mean(1)
