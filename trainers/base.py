"""`ScreenerTrainer`: nnU-Net's trainer on unlabelled scans. A stage is a short file beside it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, time
from typing import Any, ClassVar, NoReturn

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LambdaLR
from tqdm import tqdm

from screener_nnu.calibration.run import calibrate_trained
from screener_nnu.detectors import ModelRef
from screener_nnu.errors import ScreenerError, StoppedError
from screener_nnu.networks.layout import for_training
from screener_nnu.networks.unet import low_precision
from screener_nnu.paths import cases_folder
from screener_nnu.planners.settings_check import check_settings
from screener_nnu.plans import OptimiserSettings, Plan, ScreenerSettings, write_json
from screener_nnu.sampling.randomness import torch_generator
from screener_nnu.trainers.batch_statistics import synchronised
from screener_nnu.trainers.loading import lost_workers_named, step_batches
from screener_nnu.trainers.reading import CaseReader
from screener_nnu.trainers.stage_logger import StageLogger
from screener_nnu.trainers.state import StageState
from screener_nnu.trainers.stopping import StopRequest

# Where epochs are short, a picture of each would take as long as its steps.
_SECONDS_A_PICTURE = 10


class ScreenerTrainer(StageState):
    """Adapts nnU-Net's trainer to stages that learn without labels.

    Kept of nnU-Net: its loop, folders, log file, command line and distributed set-up. A stage says
    which model, batches and loss it has and which figure tells that it learns: `build_model`,
    `training_batches`, `compute_loss`, `validation_figure`.
    """

    was_initialized: bool
    is_ddp: bool
    figure_name: ClassVar[str]
    higher_is_better: ClassVar[bool] = True
    #: Setting of a stage that says how many samples a step has.
    samples_setting: ClassVar[str] = "volumes_per_step"
    #: Whether a step trains only some of the parameters that need a gradient.
    in_turns: bool = False

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int | str,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008 - nnU-Net's own signature
    ) -> None:
        """Takes nnU-Net's arguments; `fold` must be `all`."""
        if fold != "all":
            raise ScreenerError(
                f"fold {fold}: a screener stage trains on the plan's own split; use fold 'all'"
            )
        if "screener" not in plans:
            raise ScreenerError(
                f"plan {plans.get('plans_name')} has no screener settings: make one with "
                "screener_plan_and_preprocess and name it with -p"
            )
        super().__init__(plans, configuration, fold, dataset_json, device)  # type: ignore[arg-type]
        self.plan = Plan.from_dict(plans)
        self.settings = self.plan.settings
        if self.is_ddp:  # nnU-Net takes the GPU of the number that the process has among all
            self.device = device
            self.grad_scaler = torch.amp.GradScaler("cuda") if device.type == "cuda" else None
            # The first process fits alone.
            self.is_ddp = self.takes_steps(self.settings)
        self.stop = StopRequest()
        check_settings(self.plan)
        self.stage_settings_check()
        steps = self.optimiser_settings
        self.num_iterations_per_epoch = min(steps.steps_per_epoch, steps.steps)
        self.num_epochs = math.ceil(steps.steps / self.num_iterations_per_epoch)
        self.num_val_iterations_per_epoch = 0
        self.enable_deep_supervision = False
        self.save_every = 1
        self.logger.local_logger = StageLogger(self.figure_name)
        self.cases_folder = cases_folder(self.plan.dataset, self.data_identifier)
        self.preprocessed_dataset_folder = str(self.cases_folder)
        self.global_step = 0
        self.best_figure: float | None = None
        self.validation_terms: dict[str, float] = {}  # what stands beside the figure in the log
        self.final_figure: float | None = None  # where `finish` measures again
        self._progress: tqdm | None = None
        self._pictured = monotonic()

    # What a stage defines.

    @property
    def optimiser_settings(self) -> OptimiserSettings:
        """Of this stage."""
        raise NotImplementedError

    @property
    def volumes_per_step(self) -> int:
        """Samples of a step over all devices."""
        raise NotImplementedError

    @classmethod
    def takes_steps(cls, settings: ScreenerSettings) -> bool:
        """Whether it is trained step by step with these settings, and not fitted in one pass."""
        return True

    @classmethod
    def scans_of_phases(cls, settings: ScreenerSettings) -> dict[str, int]:
        """Scans that a phase goes through, by the name of its method, for estimates of its time.

        A phase that takes the same time whatever the number of scans is absent.
        """
        return {}

    def stage_settings_check(self) -> None:
        """Refuses a plan that has no such stage."""

    def build_model(self) -> nn.Module:
        """The module that is trained; its parts are saved by `weights`."""
        raise NotImplementedError

    def training_batches(self, first_step: int) -> Iterator[Any]:
        """Batches of this process from a step on."""
        raise NotImplementedError

    def batches(self, reader: CaseReader[Any], first_step: int) -> Iterator[Any]:
        """What a reader gives this process, a step at a time."""
        return step_batches(
            reader, self.volumes_per_step, first_step, *self.share_of_rank(), self.settings.workers
        )

    def compute_loss(self, batch: Any, step: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Loss of a batch and its terms, for the log."""
        raise NotImplementedError

    def validation_figure(self) -> float:
        """The figure on validation scans and a fixed set of samples."""
        raise NotImplementedError

    def make_ready(self) -> None:
        """Work before every start, of a fresh run and of a resumed one; what is stored is kept."""

    def prepare(self) -> None:
        """Work before the first step of a fresh run (data-dependent initialisation)."""

    def finish(self) -> None:
        """Work after the last step, before the final checkpoint."""

    def keep_best_epoch(self) -> None:
        """Takes up the weights of the epoch with the best figure."""
        if self.is_ddp:  # the first process may still be writing
            dist.barrier()
        best = self.own_checkpoint("checkpoint_best.pth").read()
        self.load_weights(best)
        self.print_to_log_file(f"epoch {best['current_epoch']} is kept, the best one")

    def calibrate_as(self, detector: str) -> None:
        """Measures on validation scans what the scores of this plan's detector mean."""
        model = ModelRef(self.plan.dataset, self.plan.name, detector)
        calibrate_trained(model, self.device, self.settings.calibration.max_scans)

    def calibrate(self) -> None:
        """Work of the first process after the final checkpoint; it must not fail."""

    # nnU-Net's hooks.

    @property
    def data_identifier(self) -> str:
        """Folder of the cases under the preprocessed data set."""
        return self.settings.data_identifier

    def do_split(self) -> tuple[list[str], list[str]]:
        """The plan's training and validation cases; `splits_final.json` is not read."""
        return list(self.settings.split.train), list(self.settings.split.validation)

    def initialize(self) -> None:
        """Builds model, optimiser and schedule."""
        if self.was_initialized:
            raise RuntimeError("initialize was called twice")
        torch.manual_seed(self.settings.seed)
        self.upstream_identity = self.upstream(self.plan.dataset, self.plan)
        self.network = for_training(self.build_model().to(self.device), self.device)
        self.optimizer, self.lr_scheduler = self.configure_optimizers()
        if self.is_ddp:
            on_gpus = self.device.type == "cuda"
            self.network = DistributedDataParallel(
                synchronised(self.network, on_gpus),
                # No buffer differs between ranks: sending them in every forward changes nothing.
                device_ids=[self.device] if on_gpus else None,
                broadcast_buffers=False,
                find_unused_parameters=self.in_turns,
            )
        self.was_initialized = True

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, LambdaLR]:
        """AdamW; warm-up and cosine decay a step."""
        settings = self.optimiser_settings
        optimiser = torch.optim.AdamW(
            self.parameter_groups(),
            lr=settings.learning_rate,
            eps=settings.eps,
            weight_decay=settings.weight_decay,
        )
        return optimiser, LambdaLR(optimiser, lambda step: schedule_factor(settings, step))

    def parameter_groups(self) -> list[Any]:
        """What AdamW trains: parameters, or groups of them with settings of their own."""
        trained = [p for p in self.network.parameters() if p.requires_grad]
        # What is fitted in one pass has none, and AdamW refuses an empty list.
        return trained or [nn.Parameter(torch.zeros(0))]

    def autocast(self) -> torch.autocast:
        """Mixed precision for the UNets."""
        return low_precision(self.device, self.settings.low_precision_cpu)

    @property
    def ranks(self) -> int:
        """Processes that train together."""
        return dist.get_world_size() if self.is_ddp else 1

    def share_of_rank(self) -> tuple[int, int]:
        """First sample and number of samples of this process in a step."""
        if not self.is_ddp:
            return 0, self.volumes_per_step
        ranks = self.ranks
        if self.volumes_per_step % ranks:
            raise ScreenerError(
                f"{self.volumes_per_step} samples a step cannot be shared by {ranks} devices: "
                f"choose -num_gpus so that it divides them, or set {self.stage}'s "
                f"{self.samples_setting}"
            )
        own = self.volumes_per_step // ranks
        return self.local_rank * own, own

    def sample_generators(self, step: int) -> list[torch.Generator]:
        """One for each sample of this process in a step.

        Draws belong to the sample: they are the same whatever process it falls to.
        """
        first, own = self.share_of_rank()
        return [
            torch_generator(self.device, self.settings.seed, f"{self.stage} device", step, number)
            for number in range(first, first + own)
        ]

    def run_training(self) -> None:
        """nnU-Net's loop."""
        if self.global_step == 0:
            self.logger.log("preparation_start_timestamps", time(), 0)
        with lost_workers_named():
            super().run_training()

    def on_train_start(self) -> None:
        """Checks the cases, copies the plan, measures the untrained network."""
        if not self.was_initialized:
            self.initialize()
        self.check_cases()
        self.make_ready()
        Path(self.output_folder).mkdir(parents=True, exist_ok=True)
        if self.local_rank == 0:
            base = Path(self.output_folder_base)
            write_json(base / "plans.json", self.plan.to_dict())
            write_json(base / "dataset.json", self.dataset_json)
        if self.global_step == 0:
            self.prepare()
            self.stage_log.reference = self._shared_figure()
            if self.num_epochs:
                self.print_to_log_file(
                    f"{self.stage}: {self.figure_name} of the untrained network "
                    f"{self.stage_log.reference:.4f}"
                )
            self.logger.log("preparation_end_timestamps", time(), 0)
        self.dataloader_train = self.training_batches(self.global_step)
        self._progress = tqdm(
            total=self.optimiser_settings.steps,
            initial=self.global_step,
            desc=self.stage,
            unit="step",
            disable=self.local_rank != 0 or not self.num_epochs,
        )

    def check_cases(self) -> None:
        """Refuses to start without the plan's cases."""
        if not self.settings.split.train:
            raise ScreenerError(
                f"{self.plan.name} names no scans to train the {self.stage} stage "
                "on, as plans out of a model file do: plan scans of your own with "
                "screener_plan_and_preprocess, or take a file made with --teacher"
            )
        if not self.settings.split.validation:
            raise ScreenerError(
                f"{self.plan.name} names no validation scans, on which every stage "
                "is measured: plan anew with more scans, or list some under screener.split"
            )
        missing = [
            name
            for name in (*self.settings.split.train, *self.settings.split.validation)
            if not (self.cases_folder / f"{name}.json").is_file()
        ]
        if missing:
            raise ScreenerError(
                f"{len(missing)} cases of the plan are not preprocessed (first: {missing[0]}); "
                "run screener_plan_and_preprocess with the same arguments again"
            )

    @property
    def stage_log(self) -> StageLogger:
        """Losses and figures."""
        return self.logger.local_logger

    @property
    def begins_epoch(self) -> bool:
        """Whether the next step is the first of its epoch; a stopped run goes on within one."""
        return self.global_step % self.optimiser_settings.steps_per_epoch == 0

    def on_train_epoch_start(self) -> None:
        """Training mode; the learning rate changes a step, not an epoch.

        The last epoch is shorter where epochs do not divide the planned steps, and so is one that a
        stopped run goes on with.
        """
        steps = self.optimiser_settings
        end = min((self.current_epoch + 1) * steps.steps_per_epoch, steps.steps)
        self.num_iterations_per_epoch = end - self.global_step
        self.stop.can_wait = True
        self.network.train()
        self.logger.log("lrs", self.optimizer.param_groups[0]["lr"], self.current_epoch)

    def train_step(self, batch: Any) -> dict[str, torch.Tensor]:
        """One optimiser step, unless the training is asked to end.

        Raises:
            StoppedError: it is, and `checkpoint_latest` is written.
        """
        if self.global_step and self.stop.due(self.global_step):
            self._end_early()
        self.optimizer.zero_grad(set_to_none=True)
        loss, terms = self.compute_loss(batch, self.global_step)
        scaler = self.grad_scaler
        if scaler is not None:
            scaler.scale(loss).backward()
            scaler.unscale_(self.optimizer)
        else:
            loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), self.optimiser_settings.clip_norm)
        if scaler is not None:
            scaler.step(self.optimizer)
            scaler.update()
        else:
            self.optimizer.step()
        self.lr_scheduler.step()
        self.global_step += 1
        if self._progress is not None:
            self._progress.update()
        return {"loss": loss.detach(), **terms}

    def _end_early(self) -> NoReturn:
        """Keeps the state between two steps."""
        if self._progress is not None:
            self._progress.close()
        if not self.begins_epoch:  # else the checkpoint of the last epoch has it all
            self.current_epoch -= 1  # is not over
            self.save_checkpoint(str(Path(self.output_folder) / "checkpoint_latest.pth"))
        raise StoppedError(
            f"the {self.stage} stage was asked to end, and did after step {self.global_step} of "
            f"{self.optimiser_settings.steps}; the same command goes on there"
        )

    def on_train_epoch_end(self, train_outputs: list[dict[str, torch.Tensor]]) -> None:
        """Logs the mean loss; stops where loss or weights are no numbers any more."""
        self.stop.can_wait = False
        means = {
            key: torch.stack([o[key].float() for o in train_outputs]).mean()
            for key in train_outputs[0]
        }
        if self.is_ddp:
            for value in means.values():
                dist.all_reduce(value)
                value /= self.ranks
        plain = {key: float(value) for key, value in means.items()}
        if not math.isfinite(plain["loss"]):
            spoilt = [not torch.isfinite(output["loss"]) for output in train_outputs]
            # Where none of its own is, the loss of another process was.
            after = spoilt.index(True) + 1 if any(spoilt) else len(spoilt)
            step = self.global_step - len(spoilt) + after
            raise self.diverged(f"its loss is {plain['loss']}", step)
        self.check_weights()
        self.logger.log("train_losses", plain.pop("loss"), self.current_epoch)
        self._terms = plain

    def on_validation_epoch_end(self, val_outputs: list[dict[str, Any]]) -> None:
        """Logs the stage's figure."""
        self.logger.log("figures", self._shared_figure(), self.current_epoch)
        self.logger.log("validation_terms", dict(self.validation_terms), self.current_epoch)

    def _shared_figure(self) -> float:
        """The stage's figure, of the first process; the others wait for it."""
        figure = self.validation_figure() if self.local_rank == 0 else math.nan
        if self.is_ddp:
            shared = torch.tensor(figure, device=self.device)
            dist.broadcast(shared, 0)
            figure = float(shared)
        return figure

    def on_epoch_end(self) -> None:
        """Log line, plot, `checkpoint_latest`, and `checkpoint_best` by the figure."""
        self.logger.log("epoch_end_timestamps", time(), self.current_epoch)
        figure = self.stage_log.get_value("figures", -1)
        values = self.stage_log.my_fantastic_logging
        loss = values["train_losses"][-1]
        terms = _words(self._terms)
        seconds = values["epoch_end_timestamps"][-1] - values["epoch_start_timestamps"][-1]
        self.print_to_log_file(
            f"epoch {self.current_epoch + 1}/{self.num_epochs} loss {loss:.4f} {terms} "
            f"| {self.figure_name} {figure:.4f} {_words(self.validation_terms)} "
            f"(untrained {self.stage_log.reference:.4f}) | {seconds:.1f} s",
            also_print_to_console=False,
        )
        if self._progress is not None:
            self._progress.set_postfix_str(f"loss {loss:.3f}, {self.figure_name} {figure:.3f}")
        self._draw_progress()
        folder = Path(self.output_folder)
        sign = 1 if self.higher_is_better else -1
        best = self.best_figure
        if best is None or math.isnan(best) or sign * figure > sign * best:
            self.best_figure = figure
            self.save_checkpoint(str(folder / "checkpoint_best.pth"))
        self.save_checkpoint(str(folder / "checkpoint_latest.pth"))
        self.current_epoch += 1

    def _draw_progress(self) -> None:
        """Draws the curves at the last epoch, and before it where that takes little of the time."""
        last = self.current_epoch + 1 == self.num_epochs
        if self.local_rank == 0 and (last or monotonic() - self._pictured > _SECONDS_A_PICTURE):
            self.logger.plot_progress_png(self.output_folder)
            self._pictured = monotonic()

    def on_train_end(self) -> None:
        """Writes `checkpoint_final`; its epoch is that of the base class."""
        if self._progress is not None:
            self._progress.close()
        self.network.eval()
        self.logger.log("finish_start_timestamps", time(), 0)
        with torch.no_grad():
            self.finish()
        self.logger.log("finish_end_timestamps", time(), 0)
        self.current_epoch -= 1
        folder = Path(self.output_folder)
        self.save_checkpoint(str(folder / "checkpoint_final.pth"))
        self.current_epoch += 1
        if self.local_rank == 0:
            (folder / "checkpoint_latest.pth").unlink(missing_ok=True)
        # A density that is fitted has no state before its training.
        untrained = f" (untrained {self.stage_log.reference:.4f})" if self.num_epochs else ""
        self.print_to_log_file(
            f"{self.stage} finished: {self.figure_name} {self._final_figure():.4f}{untrained}"
        )
        if self.local_rank == 0:
            self.calibrate()

    def _final_figure(self) -> float:
        """Of the weights in `checkpoint_final`."""
        return self.final_figure or float(self.stage_log.get_value("figures", -1))

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Nothing: the stage's figure was measured after each epoch."""


def schedule_factor(settings: OptimiserSettings, step: int) -> float:
    """Factor on the learning rate: linear from 0 over the warm-up, then cosine to 0."""
    if step < settings.warmup_steps:
        return (step + 1) / (settings.warmup_steps + 1)
    rest = max(1, settings.steps - settings.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - settings.warmup_steps) / rest)))


def _words(terms: dict[str, float]) -> str:
    return " ".join(f"{key} {value:.4f}" for key, value in terms.items())
