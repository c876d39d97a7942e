"""Stage 3: the conditional density of pooled descriptors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from screener_nnu.densities import density_class, new_density
from screener_nnu.descriptors.base import EQUALISED
from screener_nnu.detectors import TEACHER
from screener_nnu.errors import ScreenerError
from screener_nnu.inference.map_store import MapStore, maps_folder
from screener_nnu.inference.models import load_features
from screener_nnu.plans import DensitySettings, OptimiserSettings, Plan, ScreenerSettings
from screener_nnu.preprocessing.case_files import CaseFolder
from screener_nnu.sampling.randomness import torch_generator
from screener_nnu.sampling.spread import at_most
from screener_nnu.scoring.teacher import FeatureExtractor, Teacher
from screener_nnu.synthetic.anomalies import KINDS
from screener_nnu.trainers.anomaly_check import AnomalyCheck
from screener_nnu.trainers.base import ScreenerTrainer
from screener_nnu.trainers.density_maps import CropSource, Maps, MapSource
from screener_nnu.trainers.fitting import ScanRows, fit_to_rows, fit_to_stream, rows_of_a_scan
from screener_nnu.trainers.painted_scans import MAX_SCANS
from screener_nnu.trainers.processes import mean_over_all
from screener_nnu.trainers.reading import CaseReader
from screener_nnu.trainers.scan_maps import Draw, ScanSource
from screener_nnu.trainers.score_statistics import MOST_SCANS, measure_scores
from screener_nnu.trainers.storing import Networks

_STATISTICS_STEPS = 16
_VALIDATION_SAMPLES = 8
# Samples that it looks at, and about how many positions of each.
_SETTLING_SAMPLES, _SETTLING_POSITIONS = 8, 20_000

# Maps y and c of positions, (1, channels, n, 1, 1).
Rows = tuple[torch.Tensor, torch.Tensor | None]


class DensityTrainer(ScreenerTrainer):
    """Fits q(y | c) to frozen descriptors and conditions of random crops, or of whole scans."""

    stage = "density"
    figure_name = "AUROC on synthetic anomalies"

    @property
    def density(self) -> DensitySettings:
        """Settings of this stage."""
        return self.settings.density

    @property
    def optimiser_settings(self) -> OptimiserSettings:
        """Of this stage."""
        return self.density.optimiser

    @classmethod
    def takes_steps(cls, settings: ScreenerSettings) -> bool:
        """Some kinds are fitted."""
        return not density_class(settings.density.kind).fitted

    @classmethod
    def scans_of_phases(cls, settings: ScreenerSettings) -> dict[str, int]:
        """Maps are stored of training, validation and painted scans."""
        held_out = len(settings.split.validation)
        painted = len(KINDS) * min(held_out, MAX_SCANS)
        training = len(cls.scans_to_learn_from(settings))
        stored = training + held_out if settings.density.whole_scans else 0
        calibrated = min(settings.calibration.max_scans, held_out)
        return {
            "make_ready": stored + painted,
            **({} if cls.takes_steps(settings) else {"prepare": training}),
            "validation_figure": painted,
            "finish": min(MOST_SCANS, len(settings.split.train)),
            "calibrate": calibrated,
        }

    @classmethod
    def scans_to_learn_from(cls, settings: ScreenerSettings) -> tuple[str, ...]:
        """The plan's training cases, or as many of them as the settings ask for.

        What is fitted takes them as normal, and gets the normal ones alone where they are known.
        """
        split = settings.split
        names = split.train if cls.takes_steps(settings) else split.presumed_normal
        return at_most(names, settings.density.max_scans)

    def stage_settings_check(self) -> None:
        """What is fitted in one pass has no epochs."""
        self.fitted = not self.takes_steps(self.settings)

    @property
    def volumes_per_step(self) -> int:
        """Crops of a step."""
        return self.density.volumes_per_step

    def build_model(self) -> nn.Module:
        """The density; descriptor and condition are loaded and frozen beside it."""
        if self.fitted:
            self.num_epochs = 0
        dataset, folder = self.plan.dataset, self.cases_folder
        self.features: FeatureExtractor = load_features(dataset, self.plan)
        self.features.to(self.device)
        if self.features.reads != EQUALISED and not self.density.whole_scans:
            raise ScreenerError(
                "the network of the descriptor reads HU, and random crops hold the equalised image "
                "alone: add -o density.whole_scans=true"
            )
        self.channels = self._feature_channels()
        self.score_statistics: dict[str, float] = {}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.settings.seed)
            model = new_density(self.density, *self.channels)
        store = MapStore(maps_folder(folder), self.features, self.plan, self.device)
        self.source: MapSource = (
            ScanSource(folder, store, Draw(self.density.positions, model.density.reach))
            if self.density.whole_scans
            else CropSource(folder, self.features, self.plan, self.device)
        )
        self.check = AnomalyCheck(store, CaseFolder(folder), self.plan)
        return model

    def _feature_channels(self) -> tuple[int, int]:
        return self.features.descriptor_channels, int(self.features.condition.channels)

    @property
    def training_scans(self) -> tuple[str, ...]:
        """See `scans_to_learn_from`."""
        return self.scans_to_learn_from(self.settings)

    def _reader(
        self, names: tuple[str, ...], stage: str, all_positions: bool = True
    ) -> CaseReader[Any]:
        return self.source.reader(names, self.settings.seed, stage, all_positions)

    def training_batches(self, first_step: int) -> Iterator[list[Any]]:
        """Crops or scans of this process."""
        reader = self._reader(self.training_scans, self.stage, all_positions=False)
        return self.batches(reader, first_step)

    def make_ready(self) -> None:
        """Computes the maps that are kept on disk; those of an earlier run are used again."""
        ranks = self.ranks
        trained = self.upstream_identity
        networks = Networks.of(self.plan.dataset, self.plan.name, trained, self.device)
        if isinstance(self.source, ScanSource):
            names = (*self.training_scans, *self.settings.split.validation)
            self.source.fill(names[self.local_rank :: ranks], networks)
        self.check.fill(self.local_rank, ranks, networks)
        if self.is_ddp:
            torch.distributed.barrier()
        self.check.prepare()

    def on_train_start(self) -> None:
        """Says in the log what the figure of the loss is good for."""
        super().on_train_start()
        if self._is_likelihood:
            self.print_to_log_file(
                "NLL (nats) compares densities of one descriptor; across descriptors it means "
                "nothing"
            )

    @property
    def _is_likelihood(self) -> bool:
        """Whether a score is a negative log-likelihood, and no distance or weighted sum."""
        density = self.model.density
        return density.unit == "nats" and not density.settles

    def _maps_of(self, sample: Any, flips: list[int]) -> Maps:
        """Maps of a sample; all positions count where none lies in the body."""
        y, c, inside = self.source.maps(sample, flips)
        if not self.density.body_only or not inside.any():
            inside = torch.ones_like(inside)
        return y, c, inside

    @torch.no_grad()
    def prepare(self) -> None:
        """Standardises y and c by training samples and initialises the density from them.

        A density that is fitted is finished then.
        """
        if self.fitted:
            self._fit()
            return
        reader = self._reader(self.training_scans, f"{self.stage} statistics")
        some = []
        for index in range(_STATISTICS_STEPS):
            y, c = _rows(*self._maps_of(reader[index], []))
            self.model.accumulate(y, c)
            some.append(_every(_STATISTICS_STEPS, y, c))
        self.model.finish_statistics()
        self.model.initialise(*_joined(some))
        if self.is_ddp:
            for value in self.model.state_dict().values():
                torch.distributed.broadcast(value, 0)

    def _fit(self) -> None:
        """Fits the density to positions of all training scans."""
        vectors: dict[str, torch.Tensor] = {}
        if self.model.streams and self.density.whole_scans:
            fit_to_stream(self.model, lambda: self._scan_rows(self.density.positions, vectors))
        else:
            most = rows_of_a_scan(len(self.training_scans), self.channels[0])
            rows = self._scan_rows(self.density.positions or most, vectors)
            fit_to_rows(self.model, rows, self._cpu_generator("fit", 0))
        # Another scan is read in place of a broken one, and counts once.
        known = {name: vectors[name] for name in self.training_scans if name in vectors}
        if known:
            self._fit_vectors(known)

    def _scan_rows(self, most: int, vectors: dict[str, torch.Tensor]) -> Iterator[ScanRows]:
        """Positions of each training scan, `most` of them, or all with 0.

        Puts the mean descriptor of each scan into `vectors`, where predictions have it.
        """
        names = self.training_scans
        reader = self._reader(names, self.stage, all_positions=not self.density.positions)
        # Else the mean is not the one that prediction takes.
        whole = self.density.whole_scans and self.density.body_only and not self.density.positions
        for index in tqdm(range(len(names)), desc="fit", unit="scan"):
            sample = reader[index]
            y, c, inside = self._maps_of(sample, [])
            y, c = _rows(y, c, inside)
            if whole:
                vectors[sample.case] = y[0, :, :, 0, 0].mean(dim=1)
            order = torch.randperm(y.shape[2], generator=self._cpu_generator("rows", index))
            places = order[: most or None].sort().values
            rows = [None if m is None else m[0, :, places.to(m.device), 0, 0].T for m in (y, c)]
            yield ScanRows(*rows)  # type: ignore[arg-type]

    def _cpu_generator(self, what: str, index: int) -> torch.Generator:
        cpu = torch.device("cpu")
        return torch_generator(cpu, self.settings.seed, f"{self.stage} {what}", index)

    def _fit_vectors(self, vectors: dict[str, torch.Tensor]) -> None:
        odd = self.model.fit_vectors(torch.stack(list(vectors.values())), list(vectors))
        if odd:
            self.print_to_log_file(
                "scans that the mean shift moves most, see whether abnormal ones are among them: "
                + ", ".join(odd)
            )

    def compute_loss(
        self, batch: list[Any], step: int
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Mean of -log q(y | c) over the positions of all crops."""
        generators = self.sample_generators(step)
        drawn = [
            self._maps_of(sample, self._flips(generator))
            for sample, generator in zip(batch, generators, strict=True)
        ]
        if self.model.density.reach:
            losses = [
                self._negative_log_likelihood(maps, self.network, generator)
                for maps, generator in zip(drawn, generators, strict=True)
            ]
            return mean_over_all(torch.cat(losses)), {}
        # Positions stand by themselves: those of all samples are one call.
        rows = [_rows(*maps) for maps in drawn]
        y, c = _joined(rows)
        counts = [one.shape[2] for one, _ in rows]
        noise = list(zip(generators, counts, strict=True))
        return mean_over_all(-self.network(y, c, generator=noise).flatten()), {}

    def _flips(self, generator: torch.Generator) -> list[int]:
        draws = torch.rand(3, generator=generator, device=self.device).tolist()
        return [axis + 2 for axis, draw in enumerate(draws) if draw < 0.5]

    def _negative_log_likelihood(
        self,
        maps: Maps,
        network: nn.Module,
        generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        y, c, inside = maps
        if not self.model.density.reach:  # looks at each position by itself
            return -network(*_rows(y, c, inside), generator=generator).flatten()
        return -network(y, c, generator=generator)[inside]

    @torch.no_grad()
    def validation_figure(self) -> float:
        """Mean AUROC over the kinds of synthetic anomalies in validation scans.

        The held-out NLL stands beside it in the log. It compares densities of the same
        descriptor; across descriptors it means nothing.
        """
        self._settle()
        figures = self.check.auroc(
            Teacher(self.features, self.model).score, self.model.density.reach
        )
        likelihood = {"NLL": self._held_out_nll()} if self._is_likelihood else {}
        self.validation_terms = {**likelihood, **figures}
        return figures["mean"]

    @torch.no_grad()
    def _settle(self) -> None:
        """Lets the density measure what its scores need, on a few training samples."""
        self.model.eval()
        if not self.model.density.settles:
            return
        reader = self._reader(self.training_scans, f"{self.stage} statistics")
        some = []
        for index in range(_SETTLING_SAMPLES):
            y, c = _rows(*self._maps_of(reader[index], []))
            some.append(_every(max(1, y.shape[2] // _SETTLING_POSITIONS), y, c))
        self.model.settle(*_joined(some))

    def _held_out_nll(self) -> float:
        """Mean NLL without noise on fixed crops of validation scans, or on whole ones."""
        reader = self._reader(self.settings.split.validation, f"{self.stage} validation")
        values = [
            self._negative_log_likelihood(self._maps_of(reader[index], []), self.model).mean()
            for index in range(_VALIDATION_SAMPLES)
        ]
        return float(torch.stack(values).mean())

    def finish(self) -> None:
        """Takes the best epoch and measures its scores on training scans.

        The scale of the scores and their lowest value belong to the teacher.
        """
        if self.density.keep == "best" and not self.fitted:
            self.keep_best_epoch()
        if self.local_rank != 0:  # the first process writes the checkpoint
            return
        # What is fitted was measured as soon as it was.
        self.final_figure = self.stage_log.reference if self.fitted else self.validation_figure()
        teacher = Teacher(self.features, self.model).eval()
        self.score_statistics = measure_scores(
            teacher, self.cases_folder, self.settings.split.train, self.plan, self.device
        )

    def calibrate(self) -> None:
        """Measures on validation scans what the scores of this teacher mean."""
        self.calibrate_as(TEACHER)

    @classmethod
    def own_settings(cls, settings: dict[str, Any]) -> Any:
        """Its own, and which condition it sees."""
        return settings["density"], settings["condition"]["kind"]

    @classmethod
    def upstream(cls, dataset: str, plan: Plan) -> str:
        """Hash of descriptor and condition."""
        return load_features(dataset, plan).identity()

    def extra_state(self) -> dict[str, Any]:
        """What prediction needs beside the weights."""
        return {
            "channels": list(self.channels),
            "features": self.upstream_identity,
            "score_statistics": self.score_statistics,
            "nll": self.validation_terms.get("NLL"),
        }


def _rows(y: torch.Tensor, c: torch.Tensor | None, inside: torch.Tensor) -> Rows:
    """Positions that count, as maps (1, channels, n, 1, 1)."""

    def select(maps: torch.Tensor) -> torch.Tensor:
        return maps[0][:, inside[0]][None, :, :, None, None]

    return select(y), None if c is None else select(c)


def _every(step: int, y: torch.Tensor, c: torch.Tensor | None) -> Rows:
    """Some of the positions."""
    return y[:, :, ::step], None if c is None else c[:, :, ::step]


def _joined(rows: Sequence[Rows]) -> Rows:
    """The positions of several samples as those of one."""
    conditions = [c for _, c in rows if c is not None]
    y = torch.cat([one for one, _ in rows], dim=2)
    return y, torch.cat(conditions, dim=2) if conditions else None
