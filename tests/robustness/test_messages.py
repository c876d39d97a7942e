"""Messages."""

from __future__ import annotations

import gzip
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import SimpleITK as sitk  # noqa: N813

pytestmark = pytest.mark.slow
situation = pytest.mark.situation
UNTRAINED = ("the distillation stage of .* has not been trained", "screener_train 901 3d_fullres")
FOLDERS = ("raw", "preprocessed", "results")


def case(value: Any, given: str, code: int, *says: str) -> Any:
    """A parameter that is a situation, and so a row, of its own."""
    return pytest.param(value, marks=situation(given, code, *says))


def _variables(place: Any, monkeypatch: pytest.MonkeyPatch, value: Callable[[str], str]) -> Path:
    """Sets nnU-Net's folders, and works in an empty folder, which is given."""
    here = place.path("here/x").parent
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(place.world.root))
    for name in FOLDERS:
        monkeypatch.setenv(f"nnUNet_{name}", value(name))
    return here


@situation("`nnUNet_raw` and its like hold a literal `~`, as in quotes", 0, "1 maps in")
def test_home_in_variables(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    here = _variables(place, monkeypatch, lambda name: f"~/{name}")
    place.person()
    place.predict()
    assert not list(here.iterdir())


@situation("`nnUNet_raw` and its like hold a relative path", 0, "1 maps in")
def test_relative_variables(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    up = os.path.relpath(place.world.root, place.root / "here")
    here = _variables(place, monkeypatch, lambda name: f"{up}/{name}")
    place.person()
    place.predict()
    assert not list(here.iterdir())


@situation(
    "`nnUNet_raw` and its like are set to nothing",
    1,
    "unset: using .*screener_nnu",
    "no dataset 901: looked for Dataset901_\\* in",
)
def test_empty_variables(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    here = _variables(place, monkeypatch, lambda _: "")
    place.run("plan_and_preprocess", "-d", 901)
    assert not list(here.iterdir())


@situation("`-o` is a file, or lies below one", 1, "cannot hold the output .*give another folder")
@pytest.mark.parametrize("out", ["out", "out/maps"])
def test_output_is_a_file(place: Any, out: str) -> None:
    place.person()
    place.mine(place.root / "out", b"notes")
    place.predict(out=out)


@pytest.mark.parametrize(
    "words",
    [
        case(
            ("plan_and_preprocess", "-d", 901, "-np", 1),
            "nothing can be written into `nnUNet_preprocessed`", 1,
            "Dataset901_Tiny.* cannot be written .*see to the rights.*another one in "
            "nnUNet_preprocessed",
        ),
        case(
            ("train", 901, "3d_fullres", "descriptor", "-device", "cpu"),
            "nothing can be written into `nnUNet_results`", 1, "cannot be written .*nnUNet_results",
        ),
    ],
)  # fmt: skip
def test_a_folder_of_nnunet_is_a_file(planned: Any, words: tuple[Any, ...]) -> None:
    folder = "results" if "train" in words else "preprocessed"
    shutil.rmtree(planned.world.root / folder)
    planned.mine(planned.world.root / folder, b"notes")
    planned.run(*words)


@situation(
    "`-d` is neither a number nor a full name", 1, "neither a dataset number nor a name DatasetXXX"
)
@pytest.mark.parametrize("dataset", ["Dataset_foo", "abc", "../x", "-1"])
def test_no_data_set_name(planned: Any, dataset: str) -> None:
    planned.run("plan_and_preprocess", "-d", dataset)


@situation("`-d` is a number that no data set has", 1, "no dataset 777: looked for Dataset777_")
@pytest.mark.parametrize("command", ["predict", "calibrate", "synthesize_anomalies"])
def test_no_data_set(planned: Any, command: str) -> None:
    planned.person()
    words = {"predict": ("-i", planned.root / "in"), "calibrate": ()}.get(command, ())
    out = () if command == "calibrate" else ("-o", planned.root / "out")
    planned.run(command, "-d", 777, *words, *out)


@situation(
    "two data sets have one number",
    1,
    "taken more than once \\(Dataset901_Other, Dataset901_Tiny\\): give the full name",
)
def test_two_data_sets_of_a_number(planned: Any) -> None:
    (planned.world.root / "preprocessed/Dataset901_Other").mkdir()
    planned.run("plan_and_preprocess", "-d", 901)


@situation(
    "`--pool` takes the number of another data set, or no number",
    1,
    "number 901 is taken by Dataset901_Tiny: choose|--pool ninety .*is a number",
)
@pytest.mark.parametrize("number", ["901", "ninety"])
def test_pool_of_a_taken_number(planned: Any, number: str) -> None:
    planned.run("plan_and_preprocess", "-d", 901, "--pool", number, "Pool")
    assert not list((planned.world.root / "preprocessed").glob("*_Pool"))


@situation("`-p` is a plan that is not there", 1, "there is no plan .*give one of Fine, ScreenerPl")
@pytest.mark.parametrize("command", ["predict", "calibrate", "export_network"])
def test_no_such_plan(planned: Any, command: str) -> None:
    planned.person()
    words = {"predict": ("-i", planned.root / "in")}.get(command, ())
    out = () if command == "calibrate" else ("-o", planned.root / "out")
    planned.run(command, "-d", 901, "-p", "NoSuchPlans", *words, *out)


@situation(
    "`-p` names a place outside of the data set, as `../Plan`", 1, "is no name of a plan: .*leave"
)
@pytest.mark.parametrize("name", ["../Plan", "a/b", ".hidden", "a__b"])
def test_plan_elsewhere(planned: Any, name: str) -> None:
    before = sorted(planned.world.root.rglob("*.json"))
    planned.run(
        "train", 901, "3d_fullres", "descriptor", "-p", name, "-o", "seed=1", "-device", "cpu"
    )
    assert sorted(planned.world.root.rglob("*.json")) == before


def _cut(path: Path) -> bytes:
    content = path.read_bytes()
    return content[: len(content) // 2]


@pytest.mark.parametrize(
    "name",
    [
        case("a.nii.gz:cut", "the first bytes of a gzip file alone", 1, "cut short or damaged"),
        case("a.nii.gz:plain", "a `.nii.gz` that is not compressed", 1, "not compressed"),
        case("a.nii:gzip", "a `.nii` that is compressed", 1, "its name does not end in .gz"),
        case("a.nii.gz:text", "text by the name of `.nii.gz`", 1, "it is no NIfTI file, whatever"),
        case("a.mha:empty", "an empty file", 1, "the file is empty"),
        case("a.nrrd:text", "text by the name of `.nrrd`", 1, "it is no image of the kind"),
        case("a.mha:half", "an `.mha` that was cut short", 1, "the file is cut short"),
        case("a.nrrd:half", "a `.nrrd` that was cut short", 1, "the file is cut short"),
        case("a.mhd:alone", "an `.mhd` without its `.raw`", 1, "its voxels, a.*, are not beside"),
    ],
)
def test_reason_is_the_reason(place: Any, name: str) -> None:
    name, damage = name.split(":")
    path = place.person(f"in/{name}")
    nifti = sorted((place.world.raw / "imagesTr").iterdir())[0].read_bytes()
    if damage == "alone":
        next((place.root / "in").glob("a*raw")).unlink()
    contents = {
        "cut": nifti[:12],
        "plain": gzip.decompress(nifti),
        "gzip": nifti,
        "text": b"these are notes\n" * 50,
        "empty": b"",
        "half": _cut(path),
    }
    place.mine(path, contents.get(damage))
    place.says = (f"skipped a: .*{path.name} cannot be read .*({place.says[0]})",)
    place.predict()


@situation(
    "`-i` is a pair of `.hdr` and `.img`, or half of one", 1, "i.hdr has a format that is not read"
)
@pytest.mark.parametrize("whole", [True, False])
def test_pair_of_files(place: Any, whole: bool) -> None:
    source = sorted((place.world.raw / "imagesTr").iterdir())[0]
    sitk.WriteImage(sitk.ReadImage(str(source)), str(place.path("in/i.hdr")))
    if not whole:
        (place.root / "in/i.img").unlink()
    place.predict(source="in/i.hdr")


@situation(
    "beside scans lie files of formats that are not read", 0, "not read for their format: i.hdr, i"
)
def test_formats_that_are_not_read(place: Any) -> None:
    place.person()
    place.mine(place.root / "in/i.hdr", b"1")
    place.mine(place.root / "in/i.img", b"2")
    place.predict()


@situation(
    "`--dicom`, and the scan is a NIfTI file", 0, "no DICOM objects of anna: they have to refer to"
)
def test_dicom_of_nifti(place: Any) -> None:
    place.person()
    place.predict("--dicom")


@situation("no stage is trained yet", 1, *UNTRAINED)
@pytest.mark.parametrize("command", ["predict", "calibrate", "export_network", "export_model"])
def test_nothing_trained(planned: Any, command: str) -> None:
    planned.person()
    out = planned.root / "out"
    words = {
        "predict": ("-d", 901, "-i", planned.root / "in", "-o", out),
        "calibrate": ("-d", 901),
        "export_network": ("-d", 901, "-o", out),
        "export_model": (901, "-o", out.with_suffix(".zip")),
    }
    planned.run(command, *words[command])
    assert not out.exists()


@situation("`--threshold` is no threshold", 1, "is no threshold: give a number of nats, p99.9, fp1")
@pytest.mark.parametrize("words", ["high", "fp", "1,5", "nan", "inf", ""])
def test_threshold_words(place: Any, words: str) -> None:
    place.person()
    place.predict(f"--threshold={words}")


@situation(
    "`--threshold dice` of a model that saw no annotated case",
    1,
    "needs annotated cases.*--masks",
)
@pytest.mark.parametrize("words", ["dice", "recall0.8"])
def test_threshold_of_annotations(place: Any, words: str) -> None:
    place.person()
    place.predict("--threshold", words)


@situation("`--findings` without `--threshold`", 1, "findings are the places above a threshold")
def test_findings_without_threshold(place: Any) -> None:
    place.person()
    place.predict("--findings")


@situation("`--min_ml` is below 0 or no number", 1, "--min_ml .*: the smallest volume of a finding")
@pytest.mark.parametrize("volume", ["-1", "nan"])
def test_volume_of_nothing(place: Any, volume: str) -> None:
    place.person()
    place.predict("--threshold", 5, "--findings", "--min_ml", volume)
    assert not (place.root / "out").exists()


@situation("`-i` does not exist", 1, "in does not exist: correct the path")
def test_no_input(place: Any) -> None:
    place.predict()


@situation("`-i` is a link that leads nowhere", 1, "in is a link to .*, which is not there")
@pytest.mark.parametrize("target", ["gone", "in"])
def test_broken_link(place: Any, target: str) -> None:
    os.symlink(place.root / target, place.root / "in")
    place.predict()


@situation("`-i` is an empty folder, or holds text alone", 1, "no image in .*: expected .nii.gz")
@pytest.mark.parametrize("text", [True, False])
def test_empty_input(place: Any, text: bool) -> None:
    place.path("in/notes.txt")
    if text:
        place.mine(place.root / "in/notes.txt", b"notes")
    place.predict()


@situation("`-i` is a file of text", 1, "notes.txt is no image: expected .nii.gz")
def test_text_as_input(place: Any) -> None:
    place.mine(place.root / "in/notes.txt", b"notes")
    place.predict(source="in/notes.txt")


@situation("`-i` is a folder that may not be read", 1, "in: Permission denied; see to its rights")
def test_locked_folder(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    place.person()
    listed = Path.iterdir

    def refused(path: Path) -> Any:
        if path.name == "in":
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", refused)
    place.predict()


def _predicted(place: Any, *names: str) -> None:
    for name in names or ("anna",):
        place.person(f"in/{name}.nii.gz")
    place.before(
        "predict", "-d", 901, "-i", place.root / "in", "-o", place.root / "out", "-device", "cpu"
    )


@situation(
    "no annotation has the name of a map",
    1,
    "no case can be evaluated \\(anna: no annotation: .*: map and annotation are",
)
@pytest.mark.parametrize("name", [None, "berta.nii.gz"])
def test_annotations_of_others(place: Any, name: str | None) -> None:
    _predicted(place)
    place.path("masks/x")
    if name is not None:
        shutil.copy(place.root / "out/anna_body.nii.gz", place.root / "masks" / name)
    place.run("evaluate", "-i", place.root / "out", "-r", place.root / "masks", "-np", 1)


@situation("`-r` is no folder", 1, "masks does not exist: correct the path")
def test_no_folder_of_annotations(place: Any) -> None:
    _predicted(place)
    place.run("evaluate", "-i", place.root / "out", "-r", place.root / "masks", "-np", 1)


@situation("`-o` of an evaluation is a file", 1, "figures cannot hold the output .*give another")
def test_evaluation_into_a_file(place: Any) -> None:
    _predicted(place)
    place.path("masks/anna.nii.gz")
    shutil.copy(place.root / "out/anna_body.nii.gz", place.root / "masks/anna.nii.gz")
    place.mine(place.root / "figures", b"notes")
    place.run(
        "evaluate", "-i", place.root / "out", "-r", place.root / "masks", "-np", 1,
        "-o", place.root / "figures",
    )  # fmt: skip


@situation(
    "the map is that of another scan", 1, "the map has .* voxels and the scan .*: give the scan"
)
def test_map_of_another_scan(place: Any) -> None:
    _predicted(place)
    other = sorted((place.world.raw / "imagesTr").iterdir())[3]
    place.run(
        "view", "-i", other, "-m", place.root / "out/anna.nii.gz", "-o", place.root / "page.html"
    )
    assert not (place.root / "page.html").exists()


@situation("`-m` does not exist", 1, "gone.nii.gz does not exist: correct the path")
def test_no_map(place: Any) -> None:
    place.person()
    place.run(
        "view", "-i", place.root / "in", "-m", place.root / "gone.nii.gz", "-o", place.root / "page"
    )


@situation("`--masks` without `--images`", 1, "--masks needs scans: name their folder")
def test_masks_alone(place: Any) -> None:
    place.run("calibrate", "-d", 901, "--masks", place.root)


@situation(
    "the plan keeps no scans for testing", 1, "keeps no scans for test: take --use validation, or"
)
def test_no_test_scans(planned: Any) -> None:
    path = planned.world.preprocessed / "ScreenerPlans.json"
    from screener_nnu.plans import read_plan, write_json

    plan = read_plan(path).to_dict()
    plan["screener"]["split"]["test"] = []
    write_json(path, plan)
    planned.run("synthesize_anomalies", "-d", 901, "-o", planned.root / "set", "-np", 0)


@pytest.mark.parametrize(
    "kind",
    [
        case("text", "a model file that is no zip", 1, "damaged or no model file"),
        case("other", "a zip of something else", 1, "was not made by screener_export_model"),
        case("cut", "a model file that was cut short", 1, "damaged or no model file .*again"),
        case("none", "a model file that is not there", 1, "model.zip does not exist: correct"),
    ],
)
def test_model_files(place: Any, kind: str) -> None:
    path = place.root / "model.zip"
    if kind == "text":
        place.mine(path, b"notes")
    elif kind == "other":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("notes.txt", "notes")
    elif kind == "cut":
        place.before("export_model", 901, "-o", path)
        path.write_bytes(_cut(path))
    place.run("install_model", path, "--number", 920)
    assert not list(place.world.root.rglob("Dataset920*"))


@pytest.mark.parametrize(
    "words",
    [
        case(("--densities", "normal"), "a density that is not known", 1, "no density 'normal'"),
        case(("--losses", "dice"), "a loss that is not known", 1, "no loss 'dice'; known: vicreg"),
        case(("--seeds", 0), "no seed at all", 1, "--seeds 0: one run of each combination is the"),
    ],
)
def test_ablation_words(planned: Any, words: tuple[object, ...]) -> None:
    planned.run("ablate", 901, *words)


@pytest.mark.parametrize(
    "setting",
    [
        case(("pretext.method=byol",), "a method that is not known", 1, "no pretext.method 'byol'"),
        case(
            ("pretext.backbone=resnet18",),
            "a network of pictures, and the plan is of CT",
            1,
            "pretext.backbone 'resnet18' is a network of pictures",
        ),
        case(
            ("pretext.method=rotnet", "pretext.options.classes=5"),
            "five classes of images that can be turned in four ways",
            1,
            "makes at most 4 classes",
        ),
    ],
)
def test_pretext_words(planned: Any, setting: tuple[str, ...]) -> None:
    words = [word for one in setting for word in ("-o", one)]
    planned.run("train", 901, "3d_fullres", "pretext", "-p", "Mine", *words, "-device", "cpu")


@pytest.mark.parametrize(
    ("words", "number"),
    [
        pytest.param(
            (), 510, marks=situation("an export without DICOM", 1, "no DICOM image in .*: give the")
        ),
        pytest.param(
            (),
            901,
            marks=situation("a number that is taken", 1, "number 901 is taken by Dataset901"),
        ),
        pytest.param(
            ("--include", "(["),
            510,
            marks=situation("`--include` is no regular expression", 1, "is no regular expression"),
        ),
        pytest.param(
            (),
            5100,
            marks=situation("a number above 999", 1, "5100 is no number of a dataset"),
        ),
    ],
)
def test_import_words(planned: Any, words: tuple[str, ...], number: int) -> None:
    planned.own_raw()
    planned.mine(planned.root / "export/notes.txt", b"notes")
    planned.run(
        "import_data",
        "-i",
        planned.root / "export",
        "-d",
        number,
        "--name",
        "My",
        "-np",
        0,
        *words,
    )
    assert not list((planned.world.root / "raw").glob("*_My"))
