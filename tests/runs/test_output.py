"""Output directories: their names, locks and links."""

from pathlib import Path

import pytest
from filelock import FileLock

from seewhy.errors import SeewhyError
from seewhy.runs.output import (
    DirectoryLocked,
    check_empty,
    link_latest,
    lock_directory,
    new_directory,
    run_directory,
)


def test_new_directory_makes_a_new_one_each_time(tmp_path: Path) -> None:
    first, second = new_directory("a", tmp_path), new_directory("a", tmp_path)
    assert second != first
    assert second.name.startswith(first.name[:9])


def test_run_directory_removes_its_directory_if_it_stays_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with run_directory("a") as directory:
        assert directory.is_dir()
    assert not list(tmp_path.iterdir())
    with run_directory("a") as directory:
        (directory / "file").touch()
    assert (directory / "file").exists()
    with run_directory("a", tmp_path / "mine") as directory:
        assert directory == tmp_path / "mine"


def test_check_empty(tmp_path: Path) -> None:
    check_empty(tmp_path)
    check_empty(tmp_path / "missing")
    (tmp_path / "file").touch()
    for path, problem in ((tmp_path, "is not empty"), (tmp_path / "file", "is not a directory")):
        with pytest.raises(SeewhyError, match=f"{problem}; nothing was written; choose another"):
            check_empty(path)


def test_lock_directory_may_be_nested(tmp_path: Path) -> None:
    lock = tmp_path / ".run.lock"
    with lock_directory(tmp_path / "run"), lock_directory(tmp_path / "run"):
        assert lock.exists()
    assert not lock.exists()


def test_lock_directory_keeps_others_out(tmp_path: Path) -> None:
    with (
        FileLock(tmp_path / ".run.lock"),
        pytest.raises(DirectoryLocked, match=r"another process is writing to .*run; wait"),
        lock_directory(tmp_path / "run"),
    ):
        pass


def test_latest_links_to_automatic_names_only(tmp_path: Path) -> None:
    first = new_directory("a", tmp_path)
    link_latest(first)
    assert (tmp_path / "latest").resolve() == first.resolve()
    (tmp_path / "named").mkdir()
    link_latest(tmp_path / "named")
    assert (tmp_path / "latest").resolve() == first.resolve()
    second = new_directory("b", tmp_path)
    link_latest(second)
    assert (tmp_path / "latest").resolve() == second.resolve()


def test_latest_of_the_user_is_kept(tmp_path: Path) -> None:
    (tmp_path / "named").mkdir()
    (tmp_path / "latest").symlink_to("named")
    link_latest(new_directory("a", tmp_path))
    assert (tmp_path / "latest").readlink() == Path("named")
