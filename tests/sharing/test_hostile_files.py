"""Files of strangers: whatever is wrong with one, nothing of it is run and nothing is left."""

from __future__ import annotations

import io
import json
import os
import stat
import zipfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from screener_nnu.errors import ScreenerError
from screener_nnu.sharing.install import install_model

STUDENT = "checkpoints/ScreenerPlans/distillation.pth"
PLAN = "plans/ScreenerPlans.json"
TRACE = "/tmp/screener_nnu_escaped"
Members = dict[str, bytes]

pytestmark = pytest.mark.usefixtures("nothing_written")


class Stranger:
    """Makes a folder when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (TRACE,)


def edit_json(members: Members, name: str, path: str, value: Any) -> None:
    """Sets the value at a path of keys, separated by blanks; `None` for a key takes it out."""
    values = json.loads(members[name])
    node = values
    *parents, leaf = path.split()
    for key in parents:
        node = node[key]
    node[leaf] = value
    members[name] = json.dumps(values).encode()


def test_a_file_that_is_rebuilt_unchanged_is_fine(
    model_files: dict[str, Path],
    rebuilt: Callable[..., Path],
    trained_once: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Otherwise the tests below would show nothing: `rebuilt` itself would be refused.
    for kind in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{kind}", str(tmp_path / "fresh" / kind))
    assert install_model(rebuilt(lambda members: None)).fresh


@pytest.mark.parametrize("member", ["MODEL_CARD.md", PLAN, STUDENT, "dataset.json"])
def test_a_changed_member_is_noticed(
    member: str, model_files: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "changed.zip"
    with zipfile.ZipFile(model_files["student"]) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            content = bytearray(old.read(name))
            if name == member:
                content[len(content) // 2] ^= 1
            new.writestr(zipfile.ZipInfo(name), bytes(content))
    with pytest.raises(ScreenerError, match=f"the sha256 of {member} is not the one"):
        install_model(path)


def test_flipped_bytes_and_cut_files_are_noticed(
    model_files: dict[str, Path], tmp_path: Path
) -> None:
    whole = model_files["student"].read_bytes()
    path = tmp_path / "damaged.zip"
    for kept in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:kept])
        with pytest.raises(ScreenerError, match="it is damaged or no model file.*again"):
            install_model(path)
    with zipfile.ZipFile(model_files["student"]) as archive:
        members = archive.infolist()
    for info in members:
        first = info.header_offset + 30 + len(info.filename)
        for place in (first, first + info.file_size // 2, first + info.file_size - 1):
            spoilt = bytearray(whole)
            spoilt[place] ^= 0xFF
            path.write_bytes(spoilt)
            with pytest.raises(ScreenerError, match="it is damaged.*CRC-32"):
                install_model(path)
    # The list of members, byte by byte.
    start = whole.rindex(b"PK\x01\x02")
    for place in range(start, len(whole)):
        spoilt = bytearray(whole)
        spoilt[place] ^= 0x41
        path.write_bytes(spoilt)
        try:
            install_model(path)
        except ScreenerError:
            continue
        # Dates and comments of members mean nothing; such a file is the same model.
        _remove_installed()


def _remove_installed() -> None:
    import shutil

    for kind in ("preprocessed", "results"):
        for folder in Path(os.environ[f"nnUNet_{kind}"]).glob("Dataset*"):
            shutil.rmtree(folder)


@pytest.mark.parametrize(
    "name",
    [
        "../escaped.txt",
        "plans/../../escaped.json",
        "/tmp/screener_nnu_escaped",
        "C:\\escaped.txt",
        "..\\escaped.txt",
        "plans\\ScreenerPlans.json",
        "checkpoints/../distillation.pth",
        "checkpoints/./distillation.pth",
        "checkpoints/.hidden/distillation.pth",
        "checkpoints/ScreenerPlans/unknown.pth",
        "plans/",
        "setup.py",
        "",
    ],
)
def test_members_cannot_leave_their_folder(
    name: str, model_files: dict[str, Path], rebuilt: Callable[..., Path]
) -> None:
    path = rebuilt(lambda members: members.update({name: b"x"}))
    with pytest.raises(ScreenerError, match="has no member"):
        install_model(path)


def test_a_name_that_is_cut_at_a_nul_is_refused(rebuilt: Callable[..., Path]) -> None:
    path = rebuilt(lambda members: members.update({"plans/Other.json#.exe": b"{}"}))
    path.write_bytes(path.read_bytes().replace(b"Other.json#.exe", b"Other.json\0.exe"))
    with pytest.raises(ScreenerError, match=r"has no member 'plans/Other.json\\x00.exe'"):
        install_model(path)


def test_links_folders_and_twins_are_refused(model_files: dict[str, Path], tmp_path: Path) -> None:
    def with_member(info: zipfile.ZipInfo, content: bytes = b"x") -> Path:
        path = tmp_path / "odd.zip"
        path.write_bytes(model_files["student"].read_bytes())
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(info, content)
        return path

    link = zipfile.ZipInfo("plans/Other.json")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(ScreenerError, match="a link or no plain file"):
        install_model(with_member(link, b"/etc/passwd"))
    for twin in ("model.json", "plans/screenerplans.json"):
        with pytest.warns() if twin == "model.json" else nullcontext():
            path = with_member(zipfile.ZipInfo(twin))
        with pytest.raises(ScreenerError, match="is there twice"):
            install_model(path)


def test_bombs_are_refused(model_files: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.json", b"{" + b" " * (8 << 20))
    with pytest.raises(ScreenerError, match="is compressed"):
        install_model(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.json", b"{" + b" " * (17 << 20))
    with pytest.raises(ScreenerError, match="absurd"):
        install_model(path)
    with zipfile.ZipFile(path, "w") as archive:
        for index in range(100):
            archive.writestr(f"plans/P{index}.json", b"{}")
    with pytest.raises(ScreenerError, match="100 members"):
        install_model(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.json", b"[" * 1_000_000)
    with pytest.raises(ScreenerError, match="not valid JSON"):
        install_model(path)


def test_members_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "overlap.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("plans/A.json", b" " * 200_000)
        first = archive.infolist()[0]
        for name in ("plans/B.json", "plans/C.json", "model.json"):
            twin = zipfile.ZipInfo(name)
            for key in ("CRC", "file_size", "compress_size", "header_offset"):
                setattr(twin, key, getattr(first, key))
            archive.filelist.append(twin)
            archive.NameToInfo[name] = twin
    with pytest.raises(ScreenerError, match="more bytes than the file has"):
        install_model(path)


def test_code_in_a_checkpoint_is_not_run(
    rebuilt: Callable[..., Path], changed_checkpoint: Any
) -> None:
    stream = io.BytesIO()
    torch.save({"network_weights": {}, "plan": Stranger()}, stream)
    path = rebuilt(lambda members: members.update({STUDENT: stream.getvalue()}))
    with pytest.raises(ScreenerError, match="could run code of a stranger"):
        install_model(path)
    assert not os.path.exists(TRACE)
    torch.load(stream_at_start(stream), weights_only=False)
    assert os.path.isdir(TRACE)  # otherwise the file would not show anything
    os.rmdir(TRACE)


def stream_at_start(stream: io.BytesIO) -> io.BytesIO:
    stream.seek(0)
    return stream


def test_bare_pickles_and_compressed_checkpoints_are_refused(
    rebuilt: Callable[..., Path],
) -> None:
    stream = io.BytesIO()
    torch.save({"a": torch.zeros(3)}, stream, _use_new_zipfile_serialization=False)
    path = rebuilt(lambda members: members.update({STUDENT: stream.getvalue()}))
    with pytest.raises(ScreenerError, match="no checkpoint of this format"):
        install_model(path)

    def compress(members: Members) -> None:
        packed = io.BytesIO()
        with (
            zipfile.ZipFile(io.BytesIO(members[STUDENT])) as old,
            zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new,
        ):
            for name in old.namelist():
                new.writestr(name, old.read(name))
        members[STUDENT] = packed.getvalue()

    with pytest.raises(ScreenerError, match="compressed records"):
        install_model(rebuilt(compress))


def test_values_that_swell_are_refused(
    rebuilt: Callable[..., Path], changed_checkpoint: Any
) -> None:
    def swell(checkpoint: dict[str, Any]) -> None:
        bomb: list[Any] = ["x"] * 10
        for _ in range(30):
            bomb = [bomb] * 10
        checkpoint["plan"]["transpose_forward"] = bomb

    with pytest.raises(ScreenerError, match="absurd amount of plain values"):
        install_model(rebuilt(lambda members: changed_checkpoint(members, swell)))


def _rename(checkpoint: dict[str, Any]) -> None:
    weights = checkpoint["network_weights"]
    weights["other"] = weights.pop(next(iter(weights)))


def _resize(checkpoint: dict[str, Any]) -> None:
    weights = checkpoint["network_weights"]
    weights[next(iter(weights))] = torch.zeros(2, 2)


def _not_finite(checkpoint: dict[str, Any]) -> None:
    next(iter(checkpoint["network_weights"].values())).flatten()[0] = float("nan")


def _half(checkpoint: dict[str, Any]) -> None:
    weights = checkpoint["network_weights"]
    name = next(iter(weights))
    weights[name] = weights[name].half()


def _other_plan(checkpoint: dict[str, Any]) -> None:
    for plan in (checkpoint["plan"], checkpoint["init_args"]["plans"]):
        plan["screener"]["seed"] += 1


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (_rename, "do not fit the plan's network"),
        (_resize, r"is \(2, 2\) torch.float32, but the plan's network wants"),
        (_half, "torch.float16, but the plan's network wants"),
        (_not_finite, "no finite numbers"),
        (_other_plan, "was trained with another plan"),
        (lambda c: c["init_args"].update(plans={}), "two plans that differ"),
        (lambda c: c.update(optimizer_state={}), "entries optimizer_state"),
        (lambda c: c.pop("score_statistics"), "entries score_statistics"),
        (lambda c: c["score_statistics"].update(std=0.0), "score statistics"),
        (lambda c: c.update(trainer_name="os.system"), "names the trainer"),
        (lambda c: c.update(network_weights=[1]), "do not fit the plan's network"),
        (lambda c: c.update(plan=3), "none of ours"),
        (lambda c: c.update(nnssl_adaptation_plan=3), "no checkpoint of ours"),
        (
            lambda c: c["nnssl_adaptation_plan"]["architecture_plans"].update(
                arch_class_name="os.system"
            ),
            "describes its network in two ways",
        ),
    ],
)
def test_checkpoints_that_do_not_fit_are_refused(
    edit: Any, reason: str, rebuilt: Callable[..., Path], changed_checkpoint: Any
) -> None:
    with pytest.raises(ScreenerError, match=reason):
        install_model(rebuilt(lambda members: changed_checkpoint(members, edit)))


ARCHITECTURE = "configurations 3d_fullres architecture"


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        (f"{ARCHITECTURE} network_class_name", "subprocess.Popen", "nnU-Net runs what stands"),
        (f"{ARCHITECTURE} arch_kwargs conv_op", "os.system", "nnU-Net runs what stands"),
        (f"{ARCHITECTURE} _kw_requires_import", ["conv_op", "x"], "nnU-Net runs what stands"),
        (f"{ARCHITECTURE} arch_kwargs block", "os.system", "which no plan of ours has"),
        (f"{ARCHITECTURE} arch_kwargs n_stages", 10**9, "absurd size"),
        ("configurations 3d_fullres preprocessor_name", "Evil", "nnU-Net runs what stands"),
        ("configurations 3d_fullres resampling_fn_data", "evil", "nnU-Net runs what stands"),
        ("configurations 3d_fullres inherits_from", "2d", "which no plan of ours has"),
        ("configurations 3d_fullres data_identifier", "../../home", "leads astray"),
        ("configurations 2d", {}, "which no plan of ours has"),
        ("image_reader_writer", "Evil", "nnU-Net runs what stands"),
        ("label_manager", "Evil", "nnU-Net runs what stands"),
        ("plans_name", "Other", "calls itself 'Other'"),
        ("dataset_name", "../x", "cannot name a data set"),
        ("screener data_identifier", "/tmp", "leads astray"),
        ("screener density descriptor_plans", "../x", "leads astray"),
        ("screener split train", ["a"], "names cases"),
        ("screener unknown", 1, "another version"),
        ("screener", None, "must hold settings"),
        ("configurations", [], "none of ours"),
    ],
)
def test_plans_cannot_name_code_or_places(
    path: str, value: Any, reason: str, rebuilt: Callable[..., Path]
) -> None:
    with pytest.raises(ScreenerError, match=reason):
        install_model(rebuilt(lambda members: edit_json(members, PLAN, path, value)))


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("format_version", 3, "format version is 3, and this installation reads 1 and 2"),
        ("format_version", True, "format version is True"),
        ("detector", "oracle", "holds the detector 'oracle', which this .*known: student, teach"),
        ("detector", [], r"holds the detector \[\]"),
        ("detector", "padim", "lacks checkpoints/ScreenerPlans_padim/density.pth"),
        ("format_version", None, "format version is None"),
        ("format", "other", "does not say that it is a 'screener_model'"),
        ("dataset", "../../x", "cannot name a data set"),
        ("dataset", "Dataset901_a/../b", "cannot name a data set"),
        ("plans_name", "Other", "lacks checkpoints/Other/distillation.pth, plans/Other.json"),
        ("files", [], "lists no files"),
        ("files x", {"bytes": 1, "sha256": "0" * 64}, "differ in"),
        (f"files {PLAN}", {"bytes": "1", "sha256": "0" * 64}, "no size and sha256"),
        (f"files {PLAN} sha256", "0" * 64, f"the sha256 of {PLAN}"),
        (f"files {PLAN} bytes", 3, f"the sha256 of {PLAN}"),
    ],
)
def test_descriptions_that_are_wrong_are_refused(
    path: str, value: Any, reason: str, rebuilt: Callable[..., Path]
) -> None:
    with pytest.raises(ScreenerError, match=reason):
        install_model(rebuilt(lambda members: edit_json(members, "model.json", path, value)))


@pytest.mark.parametrize("name", ["model.json", PLAN, "dataset.json", "histogram.json"])
@pytest.mark.parametrize("content", [b"", b"[]", b"\xff\xfe", b'"a"', b"[" * 100_000])
def test_json_that_is_none_of_ours(name: str, content: bytes, rebuilt: Callable[..., Path]) -> None:
    with pytest.raises(ScreenerError):
        install_model(rebuilt(lambda members: members.update({name: content})))


def test_a_teacher_must_be_whole(rebuilt: Callable[..., Path]) -> None:
    condition = "checkpoints/ScreenerPlans/condition.pth"
    path = rebuilt(lambda members: members.pop(condition), "teacher")
    with pytest.raises(ScreenerError, match=f"density.pth needs {condition}, which the file lacks"):
        install_model(path)


def test_a_plan_cannot_take_the_place_of_another_file(rebuilt: Callable[..., Path]) -> None:
    def add(members: Members) -> None:
        members["plans/dataset.json"] = members[PLAN]

    with pytest.raises(ScreenerError, match="the name of another file"):
        install_model(rebuilt(add))
