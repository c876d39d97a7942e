"""`screener_synthesize_anomalies` as a user calls it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from screener_nnu import paths, plans
from screener_nnu.commands.synthesize_anomalies import main
from screener_nnu.synthetic import write_phantom_dataset


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("raw")
    spacing = (6.0, 5.0, 5.0)
    return write_phantom_dataset(root, "Dataset900_Phantom", 2, 4, spacing=spacing) / "imagesTr"


def test_a_folder_of_images(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request = ["-i", str(images), "-o", str(tmp_path / "set"), "-np", "0", "--seed", "3"]
    options = ["--contrast", "150", "160", "--radius", "8", "12", "--mean_count", "2"]
    main([*request, *options, "--kinds", "hyperdense", "constant"])
    table = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in table] == ["kind", "hyperdense", "constant"]
    report = json.loads((tmp_path / "set" / "placement.json").read_text())
    assert report["seed"] == 3 and report["settings"]["contrast"] == [150.0, 160.0]
    for line in table[1:]:
        kind, scans, anomalies, volume, figure, *_ = line.split()
        blobs = [b for s in report["kinds"][kind]["scans"].values() for b in s["blobs"]]
        assert int(scans) == 2 and int(anomalies) == len(blobs)
        assert all(8 <= blob["radius_mm"] <= 12 for blob in blobs)
        assert float(figure) == pytest.approx(
            max(report["kinds"][kind]["pooled_auroc"].values()), abs=6e-4
        )
        assert float(volume) == pytest.approx(report["kinds"][kind]["volume_ml"], abs=0.51)
    with pytest.raises(SystemExit):
        main(request)
    assert "was made with other settings: contrast [150.0, 160.0]" in capsys.readouterr().err


@pytest.mark.parametrize("use", ["test", "validation"])
def test_held_out_scans_of_a_plan(
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    use: str,
) -> None:
    """Raw paths come from the fingerprint, names from the plan."""
    files = sorted(images.iterdir())
    names = [path.name.removesuffix("_0000.nii.gz") for path in files]
    split = SimpleNamespace(test=names[:1], validation=names[1:])
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    folder = tmp_path / "Dataset900_Phantom"
    folder.mkdir()
    cases = {name: {"image": str(path)} for name, path in zip(names, files, strict=True)}
    (folder / paths.FINGERPRINT_FILE).write_text(json.dumps({"cases": cases}))
    preprocessing = SimpleNamespace(modality="ct")
    settings = SimpleNamespace(split=split, preprocessing=preprocessing)
    read: Callable = lambda path: SimpleNamespace(settings=settings)  # noqa: E731
    monkeypatch.setattr(plans, "read_plan", read)
    request = ["-d", "Dataset900_Phantom", "-o", str(tmp_path / use), "-np", "0"]
    main([*request, "--use", use, "--kinds", "constant"])
    written = [path.name for path in (tmp_path / use / "constant" / "masks").iterdir()]
    assert written == [f"{getattr(split, use)[0]}.nii.gz"]
    split.test = []
    with pytest.raises(SystemExit):
        main(["-d", "Dataset900_Phantom", "-o", str(tmp_path / "none")])
    assert "--num_test" in capsys.readouterr().err
    preprocessing.modality = "mr"
    with pytest.raises(SystemExit):
        main(["-d", "Dataset900_Phantom", "-o", str(tmp_path / "none")])
    assert "a plan of MR, and anomalies are painted into scans of CT" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ([], "either a folder"),
        (["-i", "x", "-d", "1"], "either a folder"),
        (["-i", "nowhere"], "nowhere does not exist"),
        (["-i", "x", "--kinds", "shift"], "choose from pasted"),
    ],
)
def test_mistakes_are_named(
    request_: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main([*request_, "-o", str(tmp_path)])
    assert end.value.code == 1
    error = capsys.readouterr().err
    assert message in error and not list(tmp_path.iterdir())
