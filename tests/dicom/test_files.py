"""Zips are read in place, and hostile ones are refused before anything is unpacked."""

from __future__ import annotations

import io
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from screener_nnu.dicom import files as dicom_files
from screener_nnu.dicom.files import FileRef, Opener, ZipError, is_zip, list_files
from screener_nnu.dicom.finding import find_series
from screener_nnu.dicom.naming import names_by_folder
from screener_nnu.dicom.volume import read_series

Writer = Callable[..., list[Path]]


def pack(target: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(target, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return target


def series_bytes(folder: Path, write_dicom: Writer, scan: np.ndarray) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in write_dicom(folder, scan)}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zip_equals_the_folder(
    tmp_path: Path, write_dicom: Writer, scan: np.ndarray, method: int
) -> None:
    contents = series_bytes(tmp_path / "a", write_dicom, scan)
    members = {f"PAT 1/ST0/{name}": content for name, content in contents.items()}
    packed = pack(tmp_path / "export.of.may.zip", members | {"DICOMDIR": b"x" * 500}, method)
    before = sorted(os.listdir(tmp_path))
    found = find_series(packed)
    volume = read_series(found.series[0], "a")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(volume.image), scan)
    assert names_by_folder(found.series, packed) == ["export.of.may"]
    assert [h.InstanceNumber for h in volume.source.headers()] == list(range(1, 9))
    assert sorted(os.listdir(tmp_path)) == before


def test_zips_within_a_folder(tmp_path: Path, write_dicom: Writer, scan: np.ndarray) -> None:
    root = tmp_path / "root"
    contents = series_bytes(tmp_path / "a", write_dicom, scan)
    other = {f.name: f.read_bytes() for f in write_dicom(tmp_path / "b", scan, uid="1.2.826.7")}
    root.mkdir()
    pack(root / "anna.zip", contents)
    pack(root / "bert.zip", {f"x/{name}": content for name, content in other.items()})
    (root / "torn.zip").write_bytes((root / "anna.zip").read_bytes()[:3000])
    (root / "__MACOSX").mkdir()
    found = find_series(root)
    assert names_by_folder(found.series, root) == ["anna", "bert_x"]
    assert [error.path.name for error in found.bad_zips] == ["torn.zip"]
    with pytest.raises(ZipError, match=r"torn\.zip is not read: it is damaged or cut off"):
        find_series(root / "torn.zip")


def test_member_names_are_never_paths(
    tmp_path: Path, write_dicom: Writer, scan: np.ndarray
) -> None:
    contents = series_bytes(tmp_path / "a", write_dicom, scan)
    other = {f.name: f.read_bytes() for f in write_dicom(tmp_path / "b", scan, uid="1.2.826.7")}
    box = tmp_path / "box"
    box.mkdir()
    members = {f"../../escaped/{name}": content for name, content in contents.items()}
    members |= {f"/etc\\evil:{name}/\n{name}": content for name, content in other.items()}
    packed = pack(box / "evil.zip", members)
    before = sorted(tmp_path.rglob("*"))
    found = find_series(packed)
    arrays = [sitk.GetArrayFromImage(read_series(one, "a").image) for one in found.series]
    np.testing.assert_array_equal(arrays, [scan, scan])
    for name in names_by_folder(found.series, packed):
        assert name == Path(name).name and not name.startswith(".") and "\n" not in name, name
    assert sorted(tmp_path.rglob("*")) == before


def lie_about_size(packed: Path, claimed: int) -> None:
    """Writes another unpacked size into the directory of a zip of one member."""
    content = bytearray(packed.read_bytes())
    at = content.index(b"PK\x01\x02")
    struct.pack_into("<I", content, at + 24, claimed)
    packed.write_bytes(content)


def test_bombs_are_refused_unopened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = pack(tmp_path / "bomb.zip", {"a": b"\0" * (30 * 2**20)})
    large = pack(tmp_path / "large.zip", {f"{i}": os.urandom(3000) for i in range(4)})
    assert bomb.stat().st_size < 100_000

    def unpack(*arguments: object) -> None:
        raise AssertionError("a member was opened")

    monkeypatch.setattr(zipfile.ZipFile, "open", unpack)
    with pytest.raises(ZipError, match="over 200 times its size"):
        find_series(bomb)
    monkeypatch.setattr(dicom_files, "MAX_ZIP_BYTES", 11_000)
    with pytest.raises(ZipError, match="GB in all"):
        find_series(large)
    monkeypatch.setattr(dicom_files, "MAX_MEMBERS", 3)
    with pytest.raises(ZipError, match="it has 4 members"):
        find_series(large)
    monkeypatch.setattr(dicom_files, "MAX_MEMBER_BYTES", 2000)
    monkeypatch.setattr(dicom_files, "MAX_MEMBERS", 30)
    with pytest.raises(ZipError, match="a member claims"):
        find_series(large)


def test_a_member_is_read_up_to_its_claimed_size(tmp_path: Path) -> None:
    packed = pack(tmp_path / "a.zip", {"a": os.urandom(100) * 1000})
    lie_about_size(packed, 500)
    (file,) = list_files(packed)
    with Opener() as opener, opener.open(file) as stream:
        try:
            assert len(stream.read()) <= 500
        except zipfile.BadZipFile:
            pass


def test_odd_zips_are_refused(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        with zipfile.ZipFile(tmp_path / "twins.zip", "w") as archive:
            archive.writestr("a", b"1")
            archive.writestr("a", b"2")
    with pytest.raises(ZipError, match="same name"):
        list(list_files(tmp_path / "twins.zip"))
    packed = pack(tmp_path / "other.zip", {"a": b"1" * 99}, zipfile.ZIP_LZMA)
    with pytest.raises(ZipError, match="another method"):
        list(list_files(packed))
    locked = bytearray(pack(tmp_path / "locked.zip", {"a": b"1" * 99}).read_bytes())
    locked[locked.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "locked.zip").write_bytes(locked)
    with pytest.raises(ZipError, match="encrypted"):
        list(list_files(tmp_path / "locked.zip"))


def test_list_files(tmp_path: Path) -> None:
    (tmp_path / "b" / ".git").mkdir(parents=True)
    for name in ("b/2", "b/1", "a", ".hidden", "b/.git/x"):
        (tmp_path / name).write_bytes(b"1")
    (tmp_path / "linked").symlink_to(tmp_path / "a")
    # Not followed: it would never end.
    (tmp_path / "b" / "loop").symlink_to(tmp_path, target_is_directory=True)
    names = ["a", "linked", "b/1", "b/2"]
    assert list(list_files(tmp_path)) == [FileRef(tmp_path / name) for name in names]
    assert list(list_files(tmp_path / "a")) == [FileRef(tmp_path / "a")]
    assert not is_zip(tmp_path / "a") and not is_zip(tmp_path)


def test_opener_reads_members_of_several_zips(tmp_path: Path) -> None:
    packed = [pack(tmp_path / f"{i}.zip", {"x": bytes([i]) * 9, "y": b"y"}) for i in range(2)]
    with Opener() as opener:
        for path, member in ((0, "x"), (1, "x"), (0, "y"), (0, "x")):
            with opener.open(FileRef(packed[path], member)) as stream:
                start = stream.read(1)
                stream.seek(0, io.SEEK_SET)
                assert stream.read()[:1] == start == (b"y" if member == "y" else bytes([path]))
