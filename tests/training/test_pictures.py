from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import pellucid
from pellucid.data import load as load_module
from pellucid.data.load import Rows, Streamed
from pellucid.data.preprocess import Preprocess
from pellucid.errors import DataError, UsageError
from pellucid.recipe import Recipe, settle
from pellucid.training import Audited, Run, Started, resume, run
from pellucid.training.pictures import Pictures, Terms, least, pictures
from pellucid.training.prepare import prepare


def photo(seed: int) -> Image.Image:
    """Something with the broad forms of a photograph, unlike any other, redder or bluer by its seed's parity."""
    coarse = np.random.default_rng(seed).integers(0, 180, (6, 8, 3), dtype=np.uint8)
    coarse[..., 2 * (seed % 2)] += 75
    return Image.fromarray(coarse).resize((64, 48), Image.Resampling.BICUBIC)


def folder_of(root: Path, n: int = 40, split: str = "") -> Path:
    """Photographs, blue and red in turn."""
    for seed in range(n):
        place = root / split / ("red", "blue")[seed % 2]
        place.mkdir(parents=True, exist_ok=True)
        photo(seed + (1000 if split == "val" else 0)).save(place / f"{seed}.jpg", quality=90)
    return root


def recipe_of(data: Path, **changes: Any) -> Recipe:
    fixed = {"precision": "float32", "layout": "nchw", "threads": 1, "epochs": 1, "batch_size": 8, "size": 16}
    return settle(Recipe(data=str(data)), **{**fixed, **changes})


def shown(data: Path, terms: Terms | None = None, **changes: Any) -> Pictures:
    work = pictures(prepare(recipe_of(data, **changes), mismatch=True), terms or Terms())
    while True:
        try:
            next(work)
        except StopIteration as end:
            found: Pictures = end.value
            return found


def trained(data: Path, out: Path, terms: Terms | None = None, **changes: Any) -> bytes:
    *_, last = run(recipe_of(data, **changes), out=out, terms=terms)
    assert isinstance(last, Run)
    return (out / "bundle" / "model.safetensors").read_bytes()


def skipped(folder: Path) -> list[dict[str, str]]:
    text = (folder / "skipped.csv").read_text(encoding="utf-8-sig")
    return list(csv.DictReader(io.StringIO(text)))


# ---- what is refused, and what allows it


def test_a_leak_and_a_conflict_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    data = folder_of(folder_of(tmp_path / "data", split="train"), 10, split="val")
    (data / "val" / "red" / "leak.jpg").write_bytes((data / "train" / "red" / "0.jpg").read_bytes())
    (data / "train" / "blue" / "odd.jpg").write_bytes((data / "train" / "red" / "2.jpg").read_bytes())
    with pytest.raises(DataError, match=r"--accept leak label-conflict$") as caught:
        trained(data, tmp_path / "run")
    assert "val/red/leak.jpg (as train/red/0.jpg)" in str(caught.value)
    assert not (tmp_path / "run").exists()
    with pytest.raises(DataError, match="leak"):
        trained(data, tmp_path / "run", Terms(accept=("label-conflict",)))
    events = list(run(recipe_of(data), out=tmp_path / "run", terms=Terms(accept=("leak", "label-conflict"))))
    (audited,) = (event for event in events if isinstance(event, Audited))
    assert {problem.kind for problem in audited.audit.problems} == {"leak", "label-conflict"}
    assert not (tmp_path / "run" / "skipped.csv").exists()


def test_bad_files_are_left_out_and_listed_and_too_many_refused(tmp_path: Path) -> None:
    data = folder_of(tmp_path / "data")
    for name, raw in (("red/0.jpg", b""), ("blue/1.jpg", b"text"), ("blue/花 3.jpg", b"\xff\xd8\xff")):
        (data / name).write_bytes(raw)
    with pytest.raises(DataError, match=r"3 of 41 files cannot be used .*--max-bad 0\.074$"):
        trained(data, tmp_path / "run")
    trained(data, tmp_path / "run", Terms(max_bad=0.074))
    assert [(row["file"], row["label"], row["kind"]) for row in skipped(tmp_path / "run")] == [
        ("blue/1.jpg", "blue", "not-an-image"),
        ("blue/花 3.jpg", "blue", "truncated"),
        ("red/0.jpg", "red", "empty"),
    ]
    named = (tmp_path / "run" / "images.csv").read_text("utf-8")
    assert "red/2.jpg" in named
    assert "red/0.jpg" not in named


def test_a_bad_file_never_becomes_another_picture(tmp_path: Path) -> None:
    """The network is the one that the folder without the file gives."""
    data = folder_of(tmp_path / "data", split="train")
    folder_of(data, 10, split="val")
    clean = trained(data, tmp_path / "clean")
    (data / "train" / "red" / "zz bad.jpg").write_bytes(b"nothing")
    (data / "val" / "blue" / "zz bad.jpg").symlink_to("nowhere.jpg")
    assert trained(data, tmp_path / "spoiled", Terms(max_bad=0.1)) == clean
    assert len(skipped(tmp_path / "spoiled")) == 2


def test_classes_that_train_lacks_are_left_out_when_accepted(tmp_path: Path) -> None:
    data = folder_of(folder_of(tmp_path / "data", split="train"), 10, split="val")
    clean = trained(data, tmp_path / "clean")
    (data / "train" / "hollow").mkdir()
    (data / "val" / "Red").mkdir()
    photo(5000).save(data / "val" / "Red" / "a.jpg")
    with pytest.raises(DataError, match="--accept class-mismatch"):
        trained(data, tmp_path / "run")
    assert trained(data, tmp_path / "run", Terms(accept=("class-mismatch",))) == clean
    assert [(row["file"], row["kind"]) for row in skipped(tmp_path / "run")] == [("val/Red/a.jpg", "class-mismatch")]


def test_a_file_that_vanishes_between_listing_and_reading_is_named(tmp_path: Path) -> None:
    data = folder_of(tmp_path / "data")
    events = run(recipe_of(data), out=tmp_path / "run")
    next(events)
    (data / "red" / "0.jpg").unlink()
    started = next(event for event in events if isinstance(event, Started))
    assert len(started.left_out) == 1
    assert started.left_out[0].startswith("red/0.jpg: cannot be read")


# ---- labels by name


def test_natural_and_plain_sort_orders_give_the_same_network(tmp_path: Path) -> None:
    data = folder_of(tmp_path / "data")
    for n, name in enumerate(("red", "blue")):
        (data / name).rename(data / f"class {(2, 10)[n]}")
    rows = [f"{path.relative_to(data).as_posix()},{path.parent.name}" for path in data.rglob("*.jpg")]
    natural = sorted(rows, key=lambda row: (int(row.split(",")[1].split()[1]), int(Path(row.split(",")[0]).stem)))
    networks = []
    for order, lines in (("plain", sorted(rows)), ("natural", natural), ("backwards", natural[::-1])):
        (data / f"{order}.csv").write_text("\n".join(["path,label", *lines]), encoding="utf-8")
        networks.append(trained(data / f"{order}.csv", tmp_path / order))
    networks.append(trained(data, tmp_path / "folder"))
    assert len(set(networks)) == 1
    config = (tmp_path / "natural" / "bundle" / "config.json").read_text("utf-8")
    assert '"0": "class 10"' in config


# ---- doubles and a val of our own


def test_doubles_are_never_on_both_sides_of_a_split_of_our_own(tmp_path: Path) -> None:
    data = folder_of(tmp_path / "data")
    plain = shown(data, val=0.3)
    name = plain.val.names[0]
    (data / name).with_name("zz copy.jpg").write_bytes((data / name).read_bytes())
    for seed in range(4):
        # In whichever side the copy falls, the two are together.
        found = shown(data, val=0.3, seed=seed)
        sides = [{part.names[n] for n in range(len(part.names))} for part in (found.train, found.val)]
        copy = str(Path(name).with_name("zz copy.jpg").as_posix())
        assert any({name, copy} <= side for side in sides)
        assert sides[0].isdisjoint(sides[1])
        assert len(sides[0]) + len(sides[1]) == 41


# ---- packs, memory and streams


def test_pack_memory_stream_and_mapped_rows_give_the_same_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = folder_of(tmp_path / "data")
    augment: dict[str, Any] = {"augment": ("flip", "shift", "mixup")}
    first = trained(data, tmp_path / "packed", **augment)
    assert trained(data, tmp_path / "again", **augment) == first
    assert trained(data, tmp_path / "memory", Terms(cache=False), **augment) == first
    # A machine without memory: rows are taken from the mapped pack, or decoded anew.
    monkeypatch.setattr(load_module, "available_memory", lambda: 0)
    assert isinstance(shown(data).train.pixels, Rows)
    assert trained(data, tmp_path / "mapped", **augment) == first
    assert isinstance(shown(data, Terms(cache=False)).train.pixels, Streamed)
    assert trained(data, tmp_path / "streamed", Terms(cache=False), **augment) == first


def test_a_full_disk_is_said_before_and_memory_taken_instead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = folder_of(tmp_path / "data")
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Full", (), {"free": 10_000})())
    events = list(run(recipe_of(data), out=tmp_path / "run"))
    (audited,) = (event for event in events if isinstance(event, Audited))
    assert "decoded into memory" in audited.notes[0]
    monkeypatch.setattr(load_module, "available_memory", lambda: 10_000)
    with pytest.raises(DataError, match=r"memory has no room for them either: .*PELLUCID_CACHE.*--no-cache"):
        list(run(recipe_of(data), out=tmp_path / "other"))


def test_a_stopped_run_goes_on_though_its_faults_were_accepted(tmp_path: Path) -> None:
    data = folder_of(tmp_path / "data")
    (data / "blue" / "odd.jpg").write_bytes((data / "red" / "2.jpg").read_bytes())
    whole = trained(data, tmp_path / "whole", Terms(accept=("label-conflict",)), epochs=2)
    events = run(recipe_of(data, epochs=2), out=tmp_path / "run", terms=Terms(accept=("label-conflict",)))
    for event in events:
        if isinstance(event, Started):
            break
    events.close()  # type: ignore[attr-defined]
    *_, last = resume(tmp_path / "run")
    assert isinstance(last, Run)
    assert (tmp_path / "run" / "bundle" / "model.safetensors").read_bytes() == whole


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc here")
def test_rows_of_a_mapped_file_take_no_memory_of_their_own(tmp_path: Path) -> None:
    """200 MB of pixels; an epoch of batches over them leaves the process's own memory where it was."""
    from pellucid.data.batches import Batches

    n, shape = 16_384, (64, 64, 3)
    file = tmp_path / "rows.u8"
    with file.open("wb") as handle:
        handle.truncate(n * 64 * 64 * 3)
    rows = Rows(np.memmap(file, np.uint8, "r", shape=(n, *shape)), np.random.default_rng(0).permutation(n))
    preprocess = Preprocess((64, 64), "crop", 3, (0.5,) * 3, (0.5,) * 3)
    batches = Batches(rows, torch.zeros(n, dtype=torch.int64), preprocess, ("flip",), 128, 0)

    def own() -> int:
        resident, shared = (int(part) for part in Path("/proc/self/statm").read_text().split()[1:3])
        return (resident - shared) * os.sysconf("SC_PAGE_SIZE")

    before = own()
    assert sum(len(x) for x, _ in batches.epoch(0)) == n
    assert own() - before < 60_000_000


@pytest.mark.parametrize(
    ("size", "side", "resize", "expected"),
    [
        (None, 64, "crop", 64),
        (None, 40, "crop", 20),
        (40, 40, "crop", 40),
        (224, 224, "stretch", 224),
        (64, 64, "pad", 1),
    ],
)
def test_what_is_too_small(size: int | None, side: int, resize: Any, expected: int) -> None:
    preprocess = Preprocess((side, side), resize, 1, (0.5,), (0.5,))
    assert least(settle(Recipe(), size=size), preprocess) == expected


def test_the_audit_of_real_photographs_finds_nothing(real_data: Callable[[str], Path]) -> None:
    work = pictures(prepare(recipe_of(real_data("flower-photos-small"))), Terms())
    *_, last = work
    assert isinstance(last, Audited)
    assert last.audit.problems == ()


def test_terms_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UsageError, match="did you mean 'leak'"):
        Terms(accept=("leek",))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"--max-bad 5: expected a share"):
        Terms(max_bad=5)


def test_from_python_faults_are_accepted_too(tmp_path: Path) -> None:
    data = folder_of(tmp_path / "data")
    (data / "blue" / "odd.jpg").write_bytes((data / "red" / "2.jpg").read_bytes())
    settings: dict[str, Any] = {"epochs": 1, "size": 16, "precision": "float32", "layout": "nchw", "threads": 1}
    with pytest.raises(DataError, match="--accept label-conflict"):
        pellucid.train(data, out=tmp_path / "run", **settings)
    done = pellucid.train(data, out=tmp_path / "run", accept=["label-conflict"], cache=False, **settings)
    assert done.folder == tmp_path / "run"
