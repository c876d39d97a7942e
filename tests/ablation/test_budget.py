"""A budget becomes steps, which stand in plans and are found again."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from screener_nnu.ablation import budget as room
from screener_nnu.ablation.budget import (
    Assigned,
    Budget,
    assign_budget,
    chain_of,
)
from screener_nnu.ablation.compare import _seeded
from screener_nnu.ablation.failures import Failures
from screener_nnu.ablation.schedules import Link, optimiser_of, schedule, split_minutes
from screener_nnu.baselines.fanogan import FAnoGanMethod
from screener_nnu.commands.compare import main
from screener_nnu.detectors import DETECTORS, ModelRef
from screener_nnu.errors import ScreenerError
from screener_nnu.optimiser_settings import OptimiserSettings
from screener_nnu.paths import plan_file, results_folder, stage_folder
from screener_nnu.planners.variants import derive_plan
from screener_nnu.plans import read_plan
from screener_nnu.stages import OPTIMISERS, STAGES
from screener_nnu.synthetic.cases import FAMILIES
from screener_nnu.trainers import step_time
from screener_nnu.trainers.detector import planned_stages, stages_of
from screener_nnu.trainers.loading import PREFETCHED
from screener_nnu.trainers.run import new_trainer
from screener_nnu.trainers.stages import trainer_of
from screener_nnu.trainers.step_time import short_schedule, step_numbers, step_seconds

CPU = torch.device("cpu")
NAME = "Dataset901_Tiny"
SECONDS = {
    ("descriptor", ""): 0.5,
    ("condition", ""): 0.25,
    ("density", ""): 0.1,
    ("distillation", ""): 1.0,
    ("baseline", "autoencoder"): 0.2,
    ("density", "teacher_levels"): 0.125,
}


def link(stage: str, steps: int, detector: str = "") -> Link:
    return Link((stage, detector), OptimiserSettings(steps, 10, 5))


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Made step times; the detectors of every measurement."""
    calls: list[tuple[str, ...]] = []

    def made(_: str, base: str, detectors: list[str], *more: Any) -> dict[Any, float]:
        calls.append(tuple(detectors))
        return SECONDS

    monkeypatch.setattr(room, "step_seconds", made)
    return calls


def test_minutes_keep_the_ratio_of_stages() -> None:
    """100 x 0.5 s, 100 x 0.25 s and 250 x 0.1 s are 100 s, of which 50 buy half of all steps."""
    chain = [link("descriptor", 100), link("condition", 100), link("density", 250)]
    steps = split_minutes([chain], SECONDS, 50 / 60)
    assert steps == {("descriptor", ""): 50, ("condition", ""): 50, ("density", ""): 125}


def test_what_is_shared_gets_the_smallest_share_and_the_last_of_its_own_the_rest() -> None:
    long = [link("descriptor", 100), link("distillation", 50)]
    alone = [link("descriptor", 100)]
    own = [link("descriptor", 100), link("density", 100, "teacher_levels")]
    steps = split_minutes([alone, own, long], SECONDS, 1.0)
    # The long chain takes 100 s, and half of a minute is the descriptor's.
    assert steps["descriptor", ""] == 60 and steps["distillation", ""] == 30
    assert steps["density", "teacher_levels"] == 240
    again = split_minutes([own], SECONDS, 1.0, {("descriptor", ""): 20})
    assert again == {("descriptor", ""): 20, ("density", "teacher_levels"): 400}
    assert split_minutes([alone], SECONDS, 1e-6) == {("descriptor", ""): 1}


def test_warm_up_and_epochs_keep_their_shares() -> None:
    planned = OptimiserSettings(steps=1200, steps_per_epoch=50, warmup_steps=60)
    assert schedule("baseline", 240, planned) == [
        "baseline.optimiser.steps=240",
        "baseline.optimiser.steps_per_epoch=10",
        "baseline.optimiser.warmup_steps=12",
    ]
    for steps in (1, 7, 5000):
        values = [int(word.partition("=")[2]) for word in schedule("igd", steps, planned)]
        OptimiserSettings(*values)
        assert 1 <= values[1] <= steps


@pytest.mark.parametrize(
    ("values", "message"),
    [((1, 1.0), "give one of them"), ((0, None), "--steps 0"), ((None, -1.0), "--minutes -1")],
)
def test_budgets_that_make_no_sense(values: Any, message: str) -> None:
    with pytest.raises(ScreenerError, match=message):
        Budget(*values)


def test_every_stage_says_where_its_optimiser_is(world: Any) -> None:
    settings = world.plan().settings
    # All differ, so that none is taken for another.
    words = [f"{path}.steps={100 + k}" for k, path in enumerate(OPTIMISERS.values())]
    derive_plan(NAME, "Other", words, "ScreenerPlans")
    derive_plan(NAME, "Placed", ["condition.kind=ape"], "Other")
    for stage in STAGES:
        plans = "Placed" if stage == "position" else "Other"
        trainer = new_trainer(NAME, stage, plans, CPU)
        assert trainer.optimiser_settings == optimiser_of(trainer.settings, stage)
        assert trainer.optimiser_settings.steps == 100 + list(OPTIMISERS).index(stage)
        assert trainer.takes_steps(settings)
    assert not trainer_of("density").takes_steps(settings.override(["density.kind=knn"]))


def steps_of(plans: str, stage: str) -> int:
    return optimiser_of(read_plan(plan_file(NAME, plans)).settings, stage).steps


def test_steps_are_those_of_every_stage(world: Any, measured: list[Any]) -> None:
    names = ["student", "teacher", "padim", "autoencoder"]
    found = assign_budget(NAME, "ScreenerPlans", names, Budget(steps=3), CPU)
    assert [one.model.detector for one in found] == names and not measured
    assert {one.model.plans for one in found} == {"ScreenerPlans_s3"}
    for stage in ("descriptor", "condition", "density", "distillation"):
        assert steps_of("ScreenerPlans_s3", stage) == 3
    assert found[3].more[0] == "baseline.optimiser.steps=3" and found[2].more == ()
    # A detector that lacks a trained stage is none of the budget's.
    (only,) = assign_budget(NAME, "ScreenerPlans", ["pca_untrained"], Budget(steps=3), CPU)
    assert only == Assigned(ModelRef(NAME, "ScreenerPlans", "pca_untrained"))


def test_a_budget_goes_before_the_steps_of_a_detector(
    world: Any, measured: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = DETECTORS["autoencoder"]
    words = ("baseline.optimiser.steps=9", "baseline.optimiser.warmup_steps=3")
    monkeypatch.setitem(DETECTORS, "made", replace(spec, overrides=(*spec.overrides, *words)))
    monkeypatch.setitem(SECONDS, ("baseline", "made"), 0.1)
    (one,) = assign_budget(NAME, "ScreenerPlans", ["made"], Budget(steps=3), CPU)
    optimiser = planned_stages(one.model, one.more).settings.baseline.optimiser
    assert (optimiser.steps, optimiser.warmup_steps) == (3, 1)
    (one,) = assign_budget(NAME, "ScreenerPlans", ["made"], Budget(minutes=0.1), CPU)
    assert planned_stages(one.model, one.more).settings.baseline.optimiser.steps == 60


def test_chosen_steps_are_found_again(
    world: Any, measured: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = Budget(minutes=0.1)
    names = ["teacher", "padim", "autoencoder"]
    first = assign_budget(NAME, "ScreenerPlans", names, budget, CPU)
    assert measured == [("teacher", "padim"), ("autoencoder",)]
    plans = [one.model.plans for one in first]
    assert plans[:2] == ["ScreenerPlans_m0p1_descriptor_to_density"] * 2
    assert plans[2] == "ScreenerPlans_m0p1_baseline"
    chain = chain_of(ModelRef(NAME, "ScreenerPlans", "teacher"))
    steps = split_minutes([chain], SECONDS, 0.1)
    assert [steps_of(plans[0], one.step[0]) for one in chain] == list(steps.values())
    assert first[2].more[0] == "baseline.optimiser.steps=30"
    # The autoencoder's own plan is written when it is trained: until then, what was measured tells.
    again = assign_budget(NAME, "ScreenerPlans", names, budget, CPU)
    assert again == first and len(measured) == 2
    # A plan that was deleted begins anew, and so does a group that another one joins.
    plan_file(NAME, plans[2]).unlink()
    assign_budget(NAME, "ScreenerPlans", ["autoencoder"], budget, CPU)
    assert measured[2:] == [("autoencoder",)]
    monkeypatch.setitem(SECONDS, ("baseline", "vae"), 0.2)
    assign_budget(NAME, "ScreenerPlans", ["autoencoder", "vae"], budget, CPU)
    assert measured[3:] == [("autoencoder", "vae")]
    # A longer chain is split anew, under a name of its own.
    longer = assign_budget(NAME, "ScreenerPlans", ["student", "padim"], budget, CPU)
    assert longer[0].model.plans == "ScreenerPlans_m0p1_descriptor_to_distillation"
    assert [steps_of(plans[0], one.step[0]) for one in chain] == list(steps.values())


def test_a_budget_of_a_plan_that_changed_is_refused(world: Any, measured: list[Any]) -> None:
    assign_budget(NAME, "ScreenerPlans", ["padim"], Budget(minutes=0.1), CPU)
    path = world.preprocessed / "ScreenerPlans.json"
    values = json.loads(path.read_text())
    values["screener"]["descriptor"]["temperature"] = 0.5
    path.write_text(json.dumps(values))
    with pytest.raises(ScreenerError, match="m0p1_descriptor has other settings for its descr"):
        assign_budget(NAME, "ScreenerPlans", ["padim"], Budget(minutes=0.1), CPU)


def test_other_seeds_grow_with_the_table(world: Any, measured: list[Any]) -> None:
    """A detector that joins brings its steps to the plans of the other seeds."""
    budget = Budget(steps=3)
    (padim,) = assign_budget(NAME, "ScreenerPlans", ["padim"], budget, CPU)
    assert len(_seeded(padim, 2, budget)) == 2
    # As if it was trained.
    folder = stage_folder(NAME, "descriptor", "ScreenerPlans_s3_seed1")
    folder.mkdir(parents=True)
    (folder / "checkpoint_final.pth").touch()
    found = assign_budget(NAME, "ScreenerPlans", ["padim", "teacher"], budget, CPU)
    for one in found:
        _, other = _seeded(one, 2, budget)
        for stage, plans in planned_stages(other.model, other.more).stages:
            if plans == "ScreenerPlans_s3_seed1":
                assert steps_of(plans, stage) == 3
    seeds = [
        read_plan(plan_file(NAME, p)).settings.seed for p in ("ScreenerPlans_s3", other.model.plans)
    ]
    assert seeds[1] == seeds[0] + 1
    # A stage that was trained with other settings is none of this table.
    path = plan_file(NAME, "ScreenerPlans_s3_seed1")
    values = json.loads(path.read_text())
    values["screener"]["descriptor"]["temperature"] = 0.5
    path.write_text(json.dumps(values))
    with pytest.raises(ScreenerError, match="seed1 has other settings for its descriptor"):
        _seeded(found[0], 2, budget)


@pytest.mark.parametrize("own", [False, True])
def test_a_plan_of_other_steps_is_not_the_budget_s(
    world: Any, measured: list[Any], own: bool
) -> None:
    if own:
        (one,) = assign_budget(NAME, "ScreenerPlans", ["autoencoder"], Budget(steps=3), CPU)
        stages_of(one.model, more=("baseline.optimiser.steps=5",))
    else:
        words = schedule("descriptor", 5, optimiser_of(world.plan().settings, "descriptor"))
        derive_plan(NAME, "ScreenerPlans_s3", words, "ScreenerPlans")
    name, plans = ("autoencoder", "s3_autoencoder") if own else ("padim", "s3")
    with pytest.raises(ScreenerError, match=f"plan ScreenerPlans_{plans} has 5 steps.*--steps 3"):
        assign_budget(NAME, "ScreenerPlans", [name], Budget(steps=3), CPU)


def test_a_detector_that_fails_changes_no_name_and_no_other(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Student is the longest chain and cannot be measured."""

    def made(
        dataset: str, base: str, detectors: list[str], name: str, device: Any, guard: Any
    ) -> dict[Any, float]:
        found = dict(SECONDS)
        with guard("student"):
            del found["distillation", ""]
            raise ScreenerError("memory ran out\nin a network")
        return found

    monkeypatch.setattr(room, "step_seconds", made)
    failures, budget = Failures("padim"), Budget(minutes=0.1)
    names = ["padim", "student"]
    (one,) = assign_budget(NAME, "ScreenerPlans", names, budget, CPU, failures.guard)
    assert one.model.plans == "ScreenerPlans_m0p1_descriptor_to_distillation"
    # Six seconds at half a second a step.
    assert steps_of(one.model.plans, "descriptor") == 12 and one.minutes == pytest.approx(0.1)
    assert failures.reasons == {"student": "memory ran out"} and failures.left(names) == ["padim"]
    with pytest.raises(ScreenerError, match="memory ran out"):
        assign_budget(
            NAME, "ScreenerPlans", ["student", "padim"], budget, CPU, Failures("student").guard
        )


def test_what_is_shared_with_a_longer_chain_has_fewer_minutes(
    world: Any, measured: list[Any]
) -> None:
    names = ["student", "padim", "autoencoder"]
    found = assign_budget(NAME, "ScreenerPlans", names, Budget(minutes=0.1), CPU)
    padim = found[1]
    steps = steps_of(padim.model.plans, "descriptor")
    assert padim.minutes == pytest.approx(steps * 0.5 / 60) and padim.minutes < 0.05
    student = sum(
        steps_of(padim.model.plans, stage) * SECONDS[stage, ""]
        for stage in ("descriptor", "condition", "density", "distillation")
    )
    assert found[0].minutes == pytest.approx(student / 60) and found[0].minutes > padim.minutes
    assert found[2].minutes == pytest.approx(0.1)


@pytest.mark.parametrize("workers", [0, 1, 3, 8])
def test_what_was_prefetched_is_not_on_the_clock(workers: int) -> None:
    numbers = step_numbers(workers)
    assert numbers.warm_up > PREFETCHED * workers and numbers.timed >= max(6, 2 * workers)
    turns = step_numbers(workers, in_turns=True)
    assert turns.timed >= 18 and turns.timed >= 2 * turns.warm_up
    assert turns.warm_up == numbers.warm_up
    words = short_schedule("baseline", turns)
    assert f"baseline.optimiser.steps={sum(turns)}" in words


@pytest.mark.long
@pytest.mark.slow
def test_networks_in_turns_are_all_on_the_clock(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of f-AnoGAN the generator, which has one turn of several, too."""
    parts: list[str] = []
    of_step = FAnoGanMethod.part_of

    def noted(self: Any, step: int, steps: int) -> str:
        parts.append(of_step(self, step, steps))
        return parts[-1]

    monkeypatch.setattr(FAnoGanMethod, "part_of", noted)
    step_seconds(NAME, "ScreenerPlans", ["fanogan"], "Timing", CPU)
    assert {"critic", "generator", "encoder"} <= set(parts[2:])


@pytest.mark.long
@pytest.mark.slow
def test_maps_of_a_killed_measurement_are_removed(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill leaves everything; the next call finds what was there before."""
    arguments = NAME, "ScreenerPlans", ["teacher"], "Timing", CPU
    with monkeypatch.context() as patch:
        patch.setattr(step_time, "_remove_maps", lambda *_: None)
        patch.setattr(step_time, "_remove", lambda *_: None)
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        step_seconds(*arguments)
    left = list(world.preprocessed.glob("*_maps/*/*.npy"))
    assert left
    step_seconds(*arguments)
    assert not list(world.preprocessed.glob("*_maps/*/*.npy"))
    assert not list(results_folder(NAME).glob("Timing*.json"))


@pytest.mark.slow
def test_steps_are_measured_and_leave_nothing_behind(world: Any) -> None:
    before = {path for path in world.root.rglob("*") if ".b2nd" not in path.name}
    found = step_seconds(NAME, "ScreenerPlans", ["student", "autoencoder", "knn"], "Timing", CPU)
    stages = ("descriptor", "condition", "density", "distillation")
    assert set(found) == {*((stage, "") for stage in stages), ("baseline", "autoencoder")}
    assert all(0 < seconds < 60 for seconds in found.values())
    after = {path for path in world.root.rglob("*") if ".b2nd" not in path.name}
    left = {path for path in after - before if path.is_file()}
    # Painted anomalies and locks do not depend on the networks.
    assert not [path for path in left if "Timing" in str(path) and path.suffix != ".lock"]
    assert not list(world.preprocessed.glob("*_maps/*/*.npy"))


@pytest.mark.long
@pytest.mark.slow
def test_a_killed_comparison_goes_on(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measured: list[Any]
) -> None:
    """Both families of anomalies, minutes, and a stop between two stages."""
    from screener_nnu.ablation import run

    words = ["901", "--detectors", "knn", "autoencoder", "--minutes", "0.05", "--kinds", "both"]
    words += ["-device", "cpu"]
    train, trained = run.train_stage, []

    def stopped(dataset: str, stage: str, plans: str, device: Any) -> None:
        if stage == "baseline" and len(trained) == 2:
            trained.append(plans)
            raise KeyboardInterrupt
        trained.append(plans)
        train(dataset, stage, plans, device)

    monkeypatch.setattr(run, "train_stage", stopped)
    with pytest.raises(SystemExit):
        main(words)
    done = {p: p.stat().st_mtime_ns for p in results_folder(NAME).rglob("checkpoint_final.pth")}
    assert len(done) == 2 and len(measured) == 2
    main(words)
    assert len(measured) == 2
    assert all(path.stat().st_mtime_ns == when for path, when in done.items())
    folder = results_folder(NAME) / "ablation_ScreenerPlans_m0p05_test"
    with (folder / "detectors.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["steps"]]
    assert [(row["method"], row["kinds"]) for row in rows] == [
        (name, family) for family in FAMILIES for name in ("knn", "autoencoder")
    ]
    # Three seconds, at half a second a step of the descriptor and a fifth one of the autoencoder.
    assert [int(row["steps"]) for row in rows[:2]] == [6, 15]
    for row in rows:
        kinds = FAMILIES[row["kinds"]]
        aurocs = [float(row[f"auroc_{kind}"]) for kind in kinds]
        assert float(row["auroc_mean"]) == pytest.approx(sum(aurocs) / len(kinds), abs=1e-6)
        for name in ("aupro_fpr30", "average_precision", "best_dice", "sensitivity_fp1"):
            assert 0 <= float(row[f"{name}_mean"]) <= 1
    assert (folder / "detectors_altered.png").is_file()
    stored = json.loads((folder / "detectors.json").read_text())
    assert stored["settings"]["budget"] == "0.05 min of steps"
    assert "Nothing was tuned in this run" in (folder / "detectors.md").read_text()


@pytest.mark.long
@pytest.mark.slow
def test_runs_of_other_seeds_are_averaged(world: Any, tmp_path: Path) -> None:
    words = ["901", "--detectors", "autoencoder", "--steps", "2", "-device", "cpu"]
    found = {}
    for seeds in ("1", "2"):
        main([*words, "--seeds", seeds, "-o", str(tmp_path)])
        found[seeds] = json.loads((tmp_path / "detectors.json").read_text())["rows"][0]
    one, two = (found[seeds]["row"] for seeds in ("1", "2"))
    assert one["seeds"][0] == two["seeds"][0] != two["seeds"][1]
    assert two["auroc"]["mean"]["value"] == pytest.approx(sum(two["seeds"]) / 2)
    assert found["2"]["figures"]["auroc"]["mean"] == two["auroc"]["mean"]
    plan = read_plan(plan_file(NAME, "ScreenerPlans_s2_seed1_autoencoder")).settings
    assert plan.seed == world.plan().settings.seed + 1 and plan.baseline.optimiser.steps == 2
    assert "2 runs of each" in (tmp_path / "detectors.md").read_text()
