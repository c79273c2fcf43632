from __future__ import annotations

import importlib.util
import json
import os
import re
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pellucid.data.audit import KINDS


@pytest.fixture(scope="module")
def faults() -> ModuleType:
    spec = importlib.util.spec_from_file_location("faults", Path(__file__).with_name("faults.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["faults"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def command(pellucid_command: Callable[..., tuple[int, str, str]]) -> Callable[..., tuple[int, str, str]]:
    return pellucid_command


def photo(seed: int, width: int = 96, height: int = 72) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def folder_of(root: Path, names: tuple[str, ...] = ("cat", "dog"), n: int = 12) -> Path:
    for k, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for i in range(n):
            photo(100 * k + i).save(root / name / f"{i}.jpg", quality=90)
    return root


# ---- forty faults


def test_forty_faults_are_named_and_none_invented(
    command: Any, faults: ModuleType, real_data: Callable[[str], Path], tmp_path: Path
) -> None:
    planted = faults.plant(real_data("flower-photos-small"), tmp_path / "flowers")
    assert len({fault.file for fault in planted}) >= 40
    assert {fault.kind for fault in planted} == set(KINDS)
    for arguments in ([], [], ["--no-cache"], ["--full"]):
        code, out, err = command("check", "flowers", "--json", *arguments)
        assert code == 3
        report = json.loads(out)
        found = [(problem["file"], problem["kind"], problem["detail"]) for problem in report["problems"]]
        for fault in planted:
            # Of two pictures that are the same, nobody can tell which came later.
            hits = [
                problem
                for problem in found
                if problem[1] == fault.kind
                and (problem[0] == fault.file or (problem[0] == fault.other and fault.file in problem[2]))
            ]
            assert len(hits) == 1, (fault, hits)
            assert fault.other in hits[0][0] + hits[0][2]
            found.remove(hits[0])
        assert found == []
        assert report["options"] == "--accept leak label-conflict class-mismatch --max-bad 0.044"
        assert report["options"] in err
    code, _, err = command("check", "flowers", *report["options"].split())
    assert (code, err) == (0, "")


def test_real_photographs_have_nothing_wrong(command: Any, real_data: Callable[[str], Path]) -> None:
    code, out, _ = command("check", real_data("flower-photos-small"), "--json")
    report = json.loads(out)
    assert (code, report["problems"], report["options"], report["refused"]) == (0, [], "", False)
    assert (report["files"], report["usable"]) == (400, 400)
    assert report["classes"]["roses"] == {
        "train": 64,
        "val": 16,
        "median_size": [320, 240],
        "example": "train/roses/13342823005_16d3df58df_n.jpg",
    }
    assert report["last_batch"] == {"pictures": 320, "batch_size": 32, "batches": 10, "last": 32}


@pytest.mark.slow
def test_training_on_forty_faults(
    command: Any, faults: ModuleType, real_data: Callable[[str], Path], tmp_path: Path
) -> None:
    """Refused as it is; with the options that are printed, as good as on the clean photographs."""
    clean = real_data("flower-photos-small")
    faults.plant(clean, tmp_path / "flowers")
    fixed = ["--precision", "float32", "--layout", "nhwc", "--threads", "1", "--epochs", "12", "--json"]
    code, _, err = command("train", "flowers", *fixed)
    assert code == 3
    assert "'orchids'" in err
    code, _, err = command("train", "flowers", *fixed, "--accept", "class-mismatch")
    assert code == 3
    assert not (tmp_path / "runs").exists()
    for part in ("5 pictures in more than one split", "4 pictures under two labels", "19 of 434 files cannot be used"):
        assert part in err
    options = re.search(r"--accept .*$", err)
    assert options is not None
    spoiled, whole = [], []
    for seed in ("0", "1", "2"):
        code, out, _ = command("train", "flowers", *fixed, "--seed", seed, *options[0].split())
        assert code == 0
        spoiled.append(json.loads(out)["accuracy"])
        whole.append(json.loads(command("train", clean, *fixed, "--seed", seed)[1])["accuracy"])
    spread = max(statistics.stdev(whole), 0.02)
    assert abs(statistics.mean(spoiled) - statistics.mean(whole)) <= 3 * spread, (spoiled, whole)


# ---- what it tells


def test_a_person_is_told_what_json_says(command: Any, tmp_path: Path) -> None:
    data = folder_of(tmp_path / "data 图")
    (data / "cat" / "copy.jpg").write_bytes((data / "cat" / "3.jpg").read_bytes())
    (data / "dog" / "empty.jpg").touch()
    with Image.open(data / "dog" / "0.jpg") as image:
        image.save(data / "dog" / "0 other.bmp")
    (data / "dog" / "0 other.bmp").rename(data / "dog" / "0 other.jpg")
    code, out, err = command("check", data)
    assert (code, err) == (0, "")
    for part in (
        "96×72",
        "27 pictures, 26 usable; shown at 64×64; batches of 16, the last of",
        "double: 2\n  cat/copy.jpg: the same picture as cat/3.jpg",
        "empty: 1\n  dog/empty.jpg: the file is empty",
        "dog/0 other.jpg is BMP",
    ):
        assert part in out, part
    report = json.loads(command("check", data, "--json")[1])
    assert (report["counts"]["empty"], report["counts"]["double"]) == (1, 2)


def test_each_fault_has_its_exit_code_and_its_option(command: Any, tmp_path: Path) -> None:
    data = folder_of(tmp_path / "data")
    assert command("check", data)[0] == 0
    (data / "bird").mkdir()
    code, _, err = command("check", data)
    assert code == 3
    assert err.endswith("--accept class-mismatch\n")
    assert command("check", data, "--accept", "class-mismatch")[0] == 0
    (data / "bird").rmdir()
    (data / "cat" / "dog.jpg").write_bytes((data / "dog" / "0.jpg").read_bytes())
    assert command("check", data)[0] == 3
    assert command("check", data, "--accept", "label-conflict")[0] == 0
    for n in range(2):
        (data / "cat" / f"bad {n}.jpg").write_bytes(b"text")
    code, _, err = command("check", data, "--accept", "label-conflict")
    assert code == 3
    assert err.endswith("--accept label-conflict --max-bad 0.075\n")


def test_what_cannot_be_trained_on_at_all_is_refused(command: Any, tmp_path: Path) -> None:
    assert command("check", tmp_path)[0] == 3
    code, _, err = command("check", folder_of(tmp_path / "one", ("cat",)))
    assert code == 3
    assert "only one class" in err
    folder_of(tmp_path / "tests" / "test")
    code, _, err = command("check", tmp_path / "tests")
    assert code == 3
    assert "no training pictures" in err
    for file in folder_of(tmp_path / "rot").rglob("*.jpg"):
        file.write_bytes(b"rot")
    code, out, _ = command("check", tmp_path / "rot", "--json")
    assert code == 3
    assert json.loads(out)["counts"] == {"not-an-image": 24}


def test_a_table_and_a_name_are_checked_too(command: Any, tmp_path: Path) -> None:
    data = folder_of(tmp_path / "data")
    rows = [f"data/cat/{n}.jpg,{label}" for n, label in ((0, "a"), (1, "a"), (2, "b"), (3, "b"))]
    (tmp_path / "table.csv").write_text("\n".join(["path,label", *rows, "data/cat/gone.jpg,b"]), encoding="utf-8")
    code, out, _ = command("check", tmp_path / "table.csv", "--json")
    report = json.loads(out)
    assert code == 0
    assert [(problem["file"], problem["kind"]) for problem in report["problems"]] == [
        ("data/cat/gone.jpg", "unreadable")
    ]
    assert data.exists()
    code, out, _ = command("check", "digits", "--json", "--augment", "shift")
    report = json.loads(out)
    assert (code, report["problems"], report["files"]) == (0, [], 1797)


def test_after_a_check_training_opens_no_picture_again(
    command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = folder_of(tmp_path / "data")
    assert command("check", data)[0] == 0

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("a picture was opened")

    monkeypatch.setattr("pellucid.data.pack.read_files", never)
    fixed = ["--epochs", "1", "--precision", "float32", "--layout", "nchw", "--threads", "1"]
    assert command("train", data, *fixed)[0] == 0


def test_a_full_check_tells_what_changed_behind_its_time(command: Any, tmp_path: Path) -> None:
    data = folder_of(tmp_path / "data")
    file = data / "cat" / "0.jpg"
    command("check", data)
    before, raw = file.stat(), file.read_bytes()
    other = (data / "cat" / "1.jpg").read_bytes()
    length = max(len(raw), len(other))
    file.write_bytes(other + bytes(length - len(other)))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    if len(raw) != length:
        pytest.skip("the other picture's file is larger")
    assert "cat/0.jpg" not in command("check", data)[1].split("nothing is wrong")[-1]
    out = command("check", data, "--full")[1]
    assert "1 files changed, though size and time of modification did not (first cat/0.jpg)" in out


# ---- the page and the sheet


def test_the_page_is_one_file_and_takes_no_name_for_markup(command: Any, tmp_path: Path) -> None:
    data = folder_of(tmp_path / "data", ("<script>alert(1)<", "dog & 狗"))
    place = data / "dog & 狗"
    (place / 'a" onerror="x.jpg').write_bytes((place / "0.jpg").read_bytes())
    code, _, _ = command("check", data, "--html", "page.html")
    assert code == 0
    page = (tmp_path / "page.html").read_text("utf-8")
    assert "<script" not in page
    assert "onerror=&#34;" in page
    assert 'onerror="' not in page
    assert "dog &amp; 狗" in page
    assert page.count("data:image/jpeg;base64,") >= 4
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "http" not in page.replace("http-equiv", "")


@pytest.mark.parametrize("changes", [[], ["flip", "crop"], ["mixup"]])
def test_the_sheet_shows_pictures_as_they_are_and_as_they_become(
    command: Any, tmp_path: Path, changes: list[str]
) -> None:
    data = folder_of(tmp_path / "data")
    code, out, _ = command("check", data, "--augment", *changes, "--sheet", "sheet.png")
    assert code == 0
    assert "sheet.png" in out
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 800
        assert sheet.height > 800
