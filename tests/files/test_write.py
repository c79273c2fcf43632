from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pellucid.errors import PellucidError, UsageError
from pellucid.files import append_line, clear_unfinished, read_json, read_lines, write_bytes, write_json, write_text

if TYPE_CHECKING:
    from collections.abc import Callable

OLD, NEW = b"the old file", b"the new file, somewhat longer than the old one"


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


class Trouble:
    """The system calls of a write, of which the `fail_at`-th (from 1) raises; counted over all kinds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: BaseException | None = None, fail_at: int = 0) -> None:
        self.error = error
        self.fail_at = fail_at
        self.calls: list[str] = []
        for name in ("open", "write", "fsync", "close", "replace", "ftruncate"):
            monkeypatch.setattr(os, name, self.counted(name, getattr(os, name)))

    def counted(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append(name)
            fails = len(self.calls) == self.fail_at and self.error is not None
            if fails and name == "write":
                # Half of it still goes out, as on a disk that is full.
                real(args[0], args[1][: len(args[1]) // 2])
            if fails and name == "close":
                real(*args)
            if fails:
                assert self.error is not None
                raise self.error
            return real(*args, **kwargs)

        return call


def test_writes_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "模型.bin"
    write_bytes(path, OLD)
    assert path.read_bytes() == OLD
    write_bytes(str(path), memoryview(bytearray(NEW)))
    assert path.read_bytes() == NEW
    write_bytes(path, b"")
    assert path.read_bytes() == b""
    assert names(tmp_path) == {"模型.bin"}


def test_a_relative_path_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_bytes("here", NEW)
    assert (tmp_path / "here").read_bytes() == NEW


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")
def test_others_may_read_it_as_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_bytes(tmp_path / "file", NEW)
        append_line(tmp_path / "lines", {})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "lines").stat().st_mode) == 0o640


def calls_of_a_write(tmp_path: Path) -> list[str]:
    with pytest.MonkeyPatch.context() as patch:
        trouble = Trouble(patch)
        write_bytes(tmp_path / "counted", NEW)
    (tmp_path / "counted").unlink()
    return trouble.calls


@pytest.mark.skipif(os.name != "posix", reason="folders are flushed on POSIX only")
def test_the_order_of_the_calls(tmp_path: Path) -> None:
    """Flushed before it is renamed, and the folder flushed after: in any other order lost power can lose the file."""
    assert calls_of_a_write(tmp_path) == ["open", "write", "fsync", "close", "replace", "open", "fsync", "close"]


@pytest.mark.parametrize("existed", [True, False])
@pytest.mark.parametrize("failing", range(1, 9))
@pytest.mark.parametrize("error", [OSError(errno.EIO, "I/O error"), KeyboardInterrupt()], ids=["EIO", "Ctrl-C"])
def test_whichever_call_fails_the_file_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int, existed: bool, error: BaseException
) -> None:
    calls = calls_of_a_write(tmp_path)
    if failing > len(calls):
        pytest.skip("fewer calls here")
    path = tmp_path / "file"
    if existed:
        path.write_bytes(OLD)
    with monkeypatch.context() as patch:
        Trouble(patch, error, failing)
        expected = PellucidError if isinstance(error, OSError) else KeyboardInterrupt
        with pytest.raises(expected, match=str(path) if isinstance(error, OSError) else None) as caught:
            write_bytes(path, NEW)
    if isinstance(caught.value, PellucidError):
        assert caught.value.exit_code == 1
        assert "I/O error" in str(caught.value)
    replaced = failing > calls.index("replace") + 1
    if replaced:
        assert path.read_bytes() == NEW
    else:
        assert path.exists() == existed
        assert not existed or path.read_bytes() == OLD
    assert names(tmp_path) <= {"file"}


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, ["no space left on the disk that holds {folder}", "free some, or choose another --out"]),
        (getattr(errno, "EDQUOT", errno.ENOSPC), ["no space left"]),
        (errno.EACCES, ["not allowed to write in {folder}", "permissions"]),
        (errno.EPERM, ["not allowed"]),
        (errno.EROFS, ["read-only", "choose another --out"]),
        (errno.ENOENT, ["{folder} does not exist"]),
        (errno.ENOTDIR, ["not a folder"]),
        (errno.EISDIR, ["something else stands there"]),
        (errno.ENAMETOOLONG, ["too long"]),
        (errno.EFBIG, ["larger than the disk", "allows"]),
        (errno.EIO, ["the system refused"]),
    ],
)
@pytest.mark.parametrize("write", [lambda p: write_bytes(p, NEW), lambda p: append_line(p, {"a": 1})])
def test_the_reason_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, words: list[str], write: Callable[[Path], None]
) -> None:
    path = tmp_path / "file"
    with monkeypatch.context() as patch:
        Trouble(patch, OSError(code, os.strerror(code)), fail_at=2)
        with pytest.raises(PellucidError) as caught:
            write(path)
    assert type(caught.value) is PellucidError
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    for word in words:
        assert word.format(folder=tmp_path) in message
    assert names(tmp_path) == set()


def test_a_missing_folder_and_a_folder_in_the_way(tmp_path: Path) -> None:
    with pytest.raises(PellucidError, match="does not exist"):
        write_bytes(tmp_path / "absent" / "file", NEW)
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    with pytest.raises(PellucidError, match="something else stands there"):
        write_bytes(tmp_path / "folder", NEW)
    with pytest.raises(PellucidError, match="something else stands there"):
        append_line(tmp_path / "folder", {})
    (tmp_path / "plain").write_bytes(b"")
    with pytest.raises(PellucidError, match="is a file, not a folder"):
        write_bytes(tmp_path / "plain" / "file", NEW)
    with pytest.raises(PellucidError, match="name is too long"):
        write_bytes(tmp_path / ("n" * 300), NEW)
    assert names(tmp_path) == {"folder", "plain"}


def test_a_folder_that_cannot_be_flushed_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        Trouble(patch, OSError(errno.EINVAL, "not supported"), fail_at=7)
        write_bytes(tmp_path / "file", NEW)
    assert (tmp_path / "file").read_bytes() == NEW


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:7]))
        write_bytes(tmp_path / "file", NEW)
        append_line(tmp_path / "lines", {"name": "a line longer than seven bytes"})
    assert (tmp_path / "file").read_bytes() == NEW
    assert read_lines(tmp_path / "lines") == [{"name": "a line longer than seven bytes"}]


LIMITED = """
import resource, sys
from pathlib import Path
from pellucid.errors import PellucidError
from pellucid.files import append_line, write_bytes
folder = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
for write in (lambda: write_bytes(folder / "file", b"n" * 10_000),
              lambda: append_line(folder / "lines", {"long": "n" * 10_000})):
    try:
        write()
    except PellucidError as error:
        print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit on a file's size is tried on Linux")
def test_a_file_the_system_really_cuts_short(tmp_path: Path) -> None:
    """No mock: the kernel takes 4,096 bytes of the 10,000 and refuses the rest."""
    (tmp_path / "file").write_bytes(OLD)
    append_line(tmp_path / "lines", {"epoch": 1})
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, timeout=60, check=True
    )
    assert len(done.stdout.splitlines()) == 2
    assert done.stdout.count("larger than the disk") == 2
    assert (tmp_path / "file").read_bytes() == OLD
    assert (tmp_path / "lines").read_bytes() == b'{"epoch": 1}\n'
    assert names(tmp_path) == {"file", "lines"}


WRITER = """
import itertools, sys
from pellucid.files import write_bytes
for letter in itertools.cycle(b"ab"):
    write_bytes(sys.argv[1], bytes([letter]) * 3_000_000)
"""


@pytest.mark.skipif(os.name != "posix", reason="kills a process as POSIX does")
def test_a_killed_writer_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)])
    try:
        deadline = time.monotonic() + 60
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        for _ in range(20):
            data = path.read_bytes()
            assert data in {b"a" * 3_000_000, b"b" * 3_000_000}
    finally:
        process.kill()
        process.wait()
    data = path.read_bytes()
    assert len(data) == 3_000_000
    assert len(set(data)) == 1


def test_text_is_utf8_with_its_own_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "text.csv"
    write_text(path, "花,1\r\nb\n")
    assert path.read_bytes() == "花,1\r\nb\n".encode()
    # What os.fsdecode makes of a file name that is no UTF-8.
    write_text(path, os.fsdecode(b"caf\xe9.jpg"))
    assert path.read_bytes() == b"caf\\udce9.jpg"


def test_json_layout(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    write_json(path, {"b": "花", "a": [1, 2.5, None, True]})
    assert path.read_text("utf-8") == ('{\n  "b": "花",\n  "a": [\n    1,\n    2.5,\n    null,\n    true\n  ]\n}\n')
    name = os.fsdecode(b"caf\xe9.jpg")
    write_json(path, [name])
    assert read_json(path) == [name]


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_json_has_no_nan(tmp_path: Path, number: float) -> None:
    path = tmp_path / "value.json"
    path.write_bytes(OLD)
    with pytest.raises(UsageError, match=r"value\.json: .*write null"):
        write_json(path, {"loss": number})
    with pytest.raises(UsageError, match=r"value\.json: .*write null"):
        append_line(path, {"loss": number})
    assert path.read_bytes() == OLD


def test_lines_are_appended(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    rows = [{"epoch": n, "text": "two\nlines, 花\u2028"} for n in range(3)]
    for row in rows:
        append_line(path, row)
    assert path.read_bytes().count(b"\n") == 3
    assert [json.loads(line) for line in path.read_text("utf-8").split("\n")[:-1]] == rows
    assert read_lines(path) == rows


def test_a_line_is_one_write_and_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append_line(tmp_path / "lines", {"epoch": 1})
    with monkeypatch.context() as patch:
        trouble = Trouble(patch)
        append_line(tmp_path / "lines", {"epoch": 2})
    assert trouble.calls == ["open", "write", "fsync", "close"]


@pytest.mark.parametrize("failing", range(1, 5))
@pytest.mark.parametrize("existed", [True, False])
def test_a_failed_line_leaves_the_lines_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int, existed: bool
) -> None:
    path = tmp_path / "lines"
    if existed:
        append_line(path, {"epoch": 1})
    before = path.read_bytes() if existed else b""
    with monkeypatch.context() as patch:
        trouble = Trouble(patch, OSError(errno.ENOSPC, "full"), failing)
        with pytest.raises(PellucidError, match="no space left"):
            append_line(path, {"epoch": 2})
    if existed:
        # Closing fails (on a network disk) after the line has been written and flushed.
        closed = trouble.calls[failing - 1] == "close"
        assert path.read_bytes() == before + (b'{"epoch": 2}\n' if closed else b"")
    assert path.exists() == existed


@pytest.mark.parametrize(
    ("torn", "left"),
    [
        (b'{"epoch": 2, "lo', []),
        (b"\0" * 5000, []),
        (b'"text"', []),
        (b"[" * 100_000, []),
        (b'{"epoch": 2}', [{"epoch": 2}]),
    ],
)
def test_a_torn_line_is_mended(tmp_path: Path, torn: bytes, left: list[dict[str, int]]) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b'{"epoch": 1}\n' + torn)
    assert read_lines(path) == [{"epoch": 1}, *left]
    append_line(path, {"epoch": 3})
    assert read_lines(path) == [{"epoch": 1}, *left, {"epoch": 3}]
    assert path.read_bytes().endswith(b'\n{"epoch": 3}\n')


def test_lines_before_a_long_file_s_tail_stay(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    row = {"text": "x" * 700_000}
    for _ in range(3):
        append_line(path, row)
    with path.open("ab") as file:
        file.write(b'{"torn')
    append_line(path, {"epoch": 1})
    assert read_lines(path) == [row, row, row, {"epoch": 1}]


def test_what_a_killed_process_left_is_cleared(tmp_path: Path) -> None:
    litter = [tmp_path / ".pellucid-0.tmp", tmp_path / "a" / "b" / ".pellucid-1.tmp"]
    kept = [tmp_path / "a" / "x.tmp", tmp_path / "a" / ".pellucid-2.json"]
    litter[1].parent.mkdir(parents=True)
    for path in (*litter, *kept):
        path.write_bytes(b"x")
    (tmp_path / ".pellucid-3.tmp").mkdir()
    clear_unfinished(tmp_path, below=False)
    assert [path.exists() for path in litter] == [False, True]
    clear_unfinished(tmp_path)
    assert not any(path.exists() for path in litter)
    assert all(path.exists() for path in kept)
    assert (tmp_path / ".pellucid-3.tmp").is_dir()
