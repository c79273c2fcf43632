from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.errors import PellucidError, UsageError
from pellucid.files import alone_in, make_folder, put, put_new, staged


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def new_folder(parent: Path, stem: str) -> Path:
    with staged(parent) as folder:
        (folder / "a file").write_text("", encoding="utf-8")
        return put_new(folder, stem)


def test_counts_up_and_overwrites_nothing(tmp_path: Path) -> None:
    first = new_folder(tmp_path / "runs", "digits-lenet5")
    assert first == tmp_path / "runs" / "digits-lenet5-1"
    (first / "recipe.json").write_text("{}")
    assert new_folder(tmp_path / "runs", "digits-lenet5").name == "digits-lenet5-2"
    (tmp_path / "runs" / "digits-lenet5-3").write_text("a file")
    (tmp_path / "runs" / "digits-lenet5-4").symlink_to(tmp_path / "nowhere")
    assert new_folder(tmp_path / "runs", "digits-lenet5").name == "digits-lenet5-5"
    shutil.rmtree(tmp_path / "runs" / "digits-lenet5-2")
    assert new_folder(tmp_path / "runs", "digits-lenet5").name == "digits-lenet5-2"
    assert names(first) == {"a file", "recipe.json"}


def test_many_at_once_get_one_each(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: new_folder(tmp_path, "run"), range(40)))
    assert {folder.name for folder in folders} == {f"run-{n}" for n in range(1, 41)}


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("Flower photos/2024", "Flower-photos-2024-1"),
        ("花卉", "花卉-1"),
        ("cafe\u0301", "café-1"),
        ("हिन्दी", "हिन्दी-1"),
        ("..", "run-1"),
        ("../../etc", "etc-1"),
        (".hidden", "hidden-1"),
        ("a\0b\nc\x1bd", "a-b-c-d-1"),
        ("C:\\x", "C-x-1"),
        ("😀", "run-1"),
        ("\udce9t", "t-1"),
        ("", "run-1"),
        ("INPUT -> [[CONV(32)]*2 -> POOL]*2", "INPUT-CONV-32-2-POOL-2-1"),
        ("cifar10-quick_v1.2", "cifar10-quick_v1.2-1"),
    ],
)
def test_stems_are_tamed(tmp_path: Path, stem: str, name: str) -> None:
    assert new_folder(tmp_path, stem) == tmp_path / name


@settings(max_examples=200, deadline=None)
@given(stem=st.text(st.characters(), max_size=400))
def test_any_stem_stays_inside(tmp_path_factory: pytest.TempPathFactory, stem: str) -> None:
    parent = tmp_path_factory.getbasetemp() / "any"
    folder = new_folder(parent, stem)
    assert folder.parent == parent
    assert folder.is_dir()
    assert not folder.name.startswith((".", "-"))
    assert len(folder.name.encode()) <= 110
    assert folder.name.isprintable()


def test_make_folder(tmp_path: Path) -> None:
    assert make_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert make_folder(tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").write_text("")
    with pytest.raises(PellucidError, match="something else stands there"):
        make_folder(tmp_path / "file")
    with pytest.raises(PellucidError, match="is a file, not a folder"):
        new_folder(tmp_path / "file" / "below", "run")


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object, **_kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "mkdir", full)
        with pytest.raises(PellucidError, match=r"no space left on the disk that holds .*choose another --out"):
            new_folder(tmp_path, "run")
        with pytest.raises(PellucidError, match="no space left"):
            make_folder(tmp_path / "new")
    assert names(tmp_path) == set()


def test_nobody_meets_half_a_folder(tmp_path: Path) -> None:
    with staged(tmp_path) as folder:
        (folder / "half").write_text("", encoding="utf-8")
        assert folder.name.startswith(".")
        assert not list(tmp_path.glob("[!.]*"))
        path = put(folder, tmp_path / "whole")
    assert names(tmp_path) == {"whole"}
    assert names(path) == {"half"}


def test_what_is_not_named_is_removed(tmp_path: Path) -> None:
    def fail() -> None:
        with staged(tmp_path) as folder:
            (folder / "half").write_text("", encoding="utf-8")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert names(tmp_path) == set()


def test_a_staged_folder_takes_an_empty_ones_place_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("precious", encoding="utf-8")
    (tmp_path / "file").write_text("precious", encoding="utf-8")
    with staged(tmp_path) as folder:
        (folder / "y").write_text("", encoding="utf-8")
        for taken in ("full", "file"):
            with pytest.raises(UsageError, match=f"{taken}: is there already, and is not overwritten"):
                put(folder, tmp_path / taken)
        assert names(put(folder, tmp_path / "empty")) == {"y"}
    assert (tmp_path / "full" / "x").read_text(encoding="utf-8") == "precious"


def test_one_process_at_a_time(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pellucid.files import alone_in\n"
        "with alone_in(sys.argv[1]):\n    print('in', flush=True)\n    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"in\n"
        with pytest.raises(UsageError, match="another process is at work"), alone_in(tmp_path):
            pass
        # However the other ends, the folder is free.
        other.kill()
        other.wait()
    with alone_in(tmp_path):
        pass
    with pytest.raises(PellucidError), alone_in(tmp_path / "nowhere"):
        pass


def test_what_a_killed_process_left_is_removed_and_what_another_is_making_is_not(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pellucid.files import staged\n"
        "with staged(sys.argv[1]) as folder:\n"
        "    (folder / 'half').write_text('')\n    print(folder.name, flush=True)\n    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        making = other.stdout.readline().strip()
        with staged(tmp_path) as folder:
            assert names(tmp_path) == {making, folder.name}
        assert names(tmp_path / making) == {"half"}
        other.kill()
        other.wait()
    # A file of that name is a file's own affair, and a link leads elsewhere.
    (tmp_path / ".pellucid-0.tmp").write_text("", encoding="utf-8")
    (tmp_path / ".pellucid-1.tmp").symlink_to(tmp_path.parent)
    with staged(tmp_path) as folder:
        assert names(tmp_path) == {folder.name, ".pellucid-0.tmp", ".pellucid-1.tmp"}
    assert tmp_path.parent.is_dir()


def test_where_nothing_is_sure_nothing_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    (tmp_path / ".pellucid-0.tmp").mkdir()
    monkeypatch.setattr(fcntl, "flock", no_locks)
    with staged(tmp_path) as folder:
        assert names(tmp_path) == {folder.name, ".pellucid-0.tmp"}


def test_a_folder_that_is_taken_for_abandoned_before_it_is_held_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may come between the making and the holding."""
    real, made = Path.mkdir, []

    def mkdir(path: Path, *settings: object, **more: object) -> None:
        real(path, *settings, **more)  # type: ignore[arg-type]
        if path != tmp_path:
            made.append(path)
        if path in made[:1]:
            path.rmdir()

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with staged(tmp_path) as folder:
        assert folder == made[1]
        assert names(tmp_path) == {folder.name}


def test_every_folder_made_is_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed, real = [], os.fsync

    def fsync(descriptor: int) -> None:
        flushed.append(os.fstat(descriptor).st_ino)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    make_folder(tmp_path / "a" / "b")
    assert flushed == [tmp_path.stat().st_ino, (tmp_path / "a").stat().st_ino]
    make_folder(tmp_path / "a" / "b")
    assert len(flushed) == 2
