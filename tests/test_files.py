import errno
from pathlib import Path

import pytest

from seewhy.errors import SeewhyError
from seewhy.files import check_file_name, write_atomically, write_text


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


@pytest.mark.parametrize("name", [".", "/", "..", "a/.."])
def test_a_directory_is_no_file_name(name: str) -> None:
    for write in (check_file_name, lambda path: write_text(path, "")):
        with pytest.raises(SeewhyError, match="is a directory; add the name of the file to write"):
            write(Path(name))
    check_file_name(Path("a/.b"))
