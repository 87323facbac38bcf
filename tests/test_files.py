import errno
import os
import sys
from pathlib import Path

import pytest

from seewhy.errors import SeewhyError
from seewhy.files import (
    check_file_name,
    check_output_file,
    is_stream,
    problem_of_path,
    write_atomically,
    write_text,
)


def test_write_atomically_keeps_the_old_file_when_it_fails(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    write_text(path, "old")

    def half(temporary: Path) -> None:
        temporary.write_text("ne")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(
        SeewhyError, match=r"the disk is full: .*summary.json could not be written; free some space"
    ):
        write_atomically(path, half)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_write_atomically_passes_other_errors_on(tmp_path: Path) -> None:
    def mistaken(temporary: Path) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_atomically(tmp_path / "x", mistaken)
    assert not list(tmp_path.iterdir())


def test_write_text_names_an_unwritable_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        SeewhyError, match=r"could not be written .Not a directory.; choose another directory"
    ):
        write_text(tmp_path / "file" / "x.json", "{}")


def test_write_text_is_readable_by_others(tmp_path: Path) -> None:
    write_text(tmp_path / "x", "")
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o644


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes, devices or links")
def test_a_pipe_or_a_device_is_written_and_stays(tmp_path: Path) -> None:
    """A rename would replace it: for root, `--output /dev/null` would remove the device."""
    pipe, link = tmp_path / "pipe", tmp_path / "null"
    os.mkfifo(pipe)
    link.symlink_to("/dev/null")
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_text(pipe, "written")
        assert os.read(reader, 100) == b"written"
    finally:
        os.close(reader)
    write_text(link, "written")
    assert pipe.is_fifo()
    assert link.is_symlink()
    assert link.is_char_device()
    assert sorted(tmp_path.iterdir()) == [link, pipe]
    assert is_stream(Path("/dev/stdout"))  # also where it is redirected to a file
    assert not any(map(is_stream, (tmp_path, tmp_path / "missing", Path(__file__))))


def test_an_output_file_is_checked_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    for name, message in {
        ".": "is a directory; add the name of the file to write",
        "file/x.json": r"file/x.json could not be written, because .*file is not a directory",
    }.items():
        with pytest.raises(SeewhyError, match=message):
            check_output_file(tmp_path / name)
    for name in ("file", "new", "new/deep/x.json"):
        check_output_file(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    monkeypatch.setattr("seewhy.files.os.access", lambda *_: False)
    with pytest.raises(SeewhyError, match=f"because {tmp_path} is read-only; choose another"):
        check_output_file(tmp_path / "new" / "x.json")
    check_output_file(Path("/dev/null"))


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes or links")
def test_problem_of_path_names_what_is_there(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dead").symlink_to("nowhere")
    for name, problem in {
        "missing": "missing does not exist",
        ".": "is a directory, not a regular file",
        "pipe": "pipe is a named pipe, not a regular file",
        "dead": "dead is a link to nowhere, which does not exist",
    }.items():
        assert problem_of_path(tmp_path / name).endswith(problem)
    assert problem_of_path(Path(__file__)) == ""


@pytest.mark.parametrize("name", [".", "/", "..", "a/.."])
def test_a_directory_is_no_file_name(name: str) -> None:
    for write in (check_file_name, lambda path: write_text(path, "")):
        with pytest.raises(SeewhyError, match="is a directory; add the name of the file to write"):
            write(Path(name))
    check_file_name(Path("a/.b"))
