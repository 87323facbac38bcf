"""The cache: memory-mapped, built once, rebuilt when damaged."""

import errno
import os
import shutil
import subprocess
import sys
import zlib
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from seewhy.data.cache import Header, SplitHeader, cache_root, map_bytes, write_header, write_names
from seewhy.data.dataset import Dataset, compute_digest, fingerprint
from seewhy.data.decode import ORIGINAL
from seewhy.data.folders import directory_source
from seewhy.data.sources import load
from seewhy.errors import SeewhyError

NAME = "shapes:train=40,test=20"
MIB = 2**20


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEEWHY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def entries(cache: Path) -> list[Path]:
    return sorted(path for path in (cache / "datasets").iterdir() if path.is_dir())


def content(data: Dataset) -> str:
    splits = {"train": data.train, "test": data.test} | (
        {"validation": data.validation} if data.validation else {}
    )
    return fingerprint(
        data.classes, {name: compute_digest(split) for name, split in splits.items()}
    )


def private_dirty(path: Path) -> int:
    """Bytes of memory that are this process's own in its mapping of `path`."""
    lines = Path("/proc/self/smaps").read_text().splitlines()
    (start,) = (i for i, line in enumerate(lines) if line.endswith(str(path)))
    fields = dict(line.split(":", 1) for line in lines[start + 1 : start + 20] if "kB" in line)
    assert int(fields["Size"].split()[0]) * 1024 >= path.stat().st_size
    return int(fields["Private_Dirty"].split()[0]) * 1024


def test_cache_root_follows_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert cache_root() == tmp_path / "cache"
    monkeypatch.delenv("SEEWHY_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_root() == tmp_path / "seewhy"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_root() == tmp_path / "home" / ".cache" / "seewhy"


def test_load_reads_the_entry_of_an_earlier_load(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load(NAME, quiet=True)
    monkeypatch.setattr("seewhy.data.sources.build_entry", lambda *_: pytest.fail("decoded twice"))
    second = load(NAME, quiet=True)
    assert second.train.names == first.train.names
    assert first.fingerprint == second.fingerprint == content(second)
    assert len(entries(own_cache)) == 1
    assert {path.name.split(".")[-1] for path in entries(own_cache)[0].iterdir()} == {
        "json",
        "images",
        "labels",
        "names",
        "originals",
        "masks",
        "crc",
    }


@pytest.mark.slow
def test_load_has_an_entry_for_each_content(own_cache: Path) -> None:
    seen = [
        load(NAME, quiet=True),
        load(f"{NAME},seed=1", quiet=True),
        load(NAME, image_size=16, quiet=True),
        load(NAME, validation=0.2, quiet=True),
        load(NAME, validation=0.2, seed=1, quiet=True),
        load(NAME, validation=0.5, quiet=True),
    ]
    assert len({data.fingerprint for data in seen}) == len(seen) == len(entries(own_cache))
    assert load(NAME, validation=0.2, seed=1, quiet=True).fingerprint == seen[4].fingerprint


def test_load_ignores_an_unused_seed(own_cache: Path) -> None:
    assert load(NAME, quiet=True).fingerprint == load(NAME, seed=7, quiet=True).fingerprint
    assert len(entries(own_cache)) == 1


def test_mapped_tensors_do_not_write_to_the_file() -> None:
    data = load(NAME, quiet=True)
    before = data.train.images.clone()
    data.train.images.zero_()
    assert data.train.masks is not None
    data.train.masks.fill_(True)
    again = load(NAME, quiet=True)
    assert torch.equal(again.train.images, before)
    assert again.train.masks is not None
    assert not again.train.masks.all()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs /proc/self/smaps")
def test_mapped_pixels_are_not_copied(own_cache: Path) -> None:
    data = load("shapes:train=600,test=10", quiet=True)
    path = entries(own_cache)[0] / "train.images"
    assert data.train.images.sum() > 0  # read it all
    assert private_dirty(path) == 0
    data.train.images[:10] = 0
    assert 0 < private_dirty(path) < path.stat().st_size / 5


@pytest.mark.skipif(sys.platform != "linux", reason="other systems count memory in other ways")
def test_map_bytes_of_more_than_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "huge.images"
    shape = (400_000, 3, 512, 512)  # 315 GB, of which the disk holds nothing
    path.touch()
    try:
        os.truncate(path, int(np.prod(shape)))
    except OSError:
        pytest.skip("this file system has no files of 315 GB")
    images = map_bytes(path, shape)
    assert images.shape == shape
    assert not images[-1].any()
    images[123_456, 0, 0, 0] = 9
    assert images[123_456].sum() == 9


@pytest.mark.slow
def test_two_processes_build_one_entry(own_cache: Path) -> None:
    script = (
        "from seewhy.data import load; print('ready', flush=True); input(); "
        "data = load('shapes:train=400,test=100'); print(data.fingerprint, len(data.train))"
    )
    pipes = {
        "stdin": subprocess.PIPE,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
    }
    command = [sys.executable, "-c", script]
    processes = [subprocess.Popen(command, **pipes) for _ in range(2)]  # type: ignore[call-overload]
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * 2
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0]
    assert sum("decoding shapes" in err for _, err in outputs) == 1
    assert len(entries(own_cache)) == 1


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def lengthened(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x")


def garbled(path: Path) -> None:
    path.write_text("{ not json")


DAMAGES: list[tuple[str, Callable[[Path], object]]] = [
    ("train.images", Path.unlink),
    ("train.images", truncated),
    ("test.images", lengthened),
    ("test.labels", truncated),
    ("train.masks", truncated),
    ("train.names", garbled),
    ("entry.json", garbled),
    ("entry.json", Path.unlink),
    ("entry.json", lambda path: path.write_text("[]")),
    ("entry.json", lambda path: path.write_text('{"classes": ["a"], "splits": {"train": {}}}')),
]


@pytest.mark.slow
def test_a_damaged_entry_is_rebuilt(own_cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = load(NAME, quiet=True).fingerprint
    for file, damage in DAMAGES:
        damage(entries(own_cache)[0] / file)
        data = load(NAME)
        assert content(data) == data.fingerprint == expected, file
        warning, *_ = capsys.readouterr().err.splitlines()
        assert warning.startswith("the cached copy of shapes is damaged ("), file
        assert load(NAME).fingerprint == expected
        assert "damaged" not in capsys.readouterr().err


def test_an_unfinished_entry_is_removed(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(
            "seewhy.data.cache.shutil.rmtree", lambda *_, **__: None
        )  # as if it had been killed
        patch.setattr("seewhy.data.sources.build_entry", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            load(NAME, quiet=True)
    assert [path.name[0] for path in entries(own_cache)] == ["."]
    load(NAME, quiet=True)
    assert [path.name.split("-")[0] for path in entries(own_cache)] == ["shapes"]


def test_a_failed_build_leaves_nothing(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("seewhy.data.build.split_digest", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            load(NAME, quiet=True)
    assert entries(own_cache) == []


def test_require_space_fails_before_decoding(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("seewhy.data.cache.shutil.disk_usage", lambda _: usage(MIB, MIB - 99, 99))
    with pytest.raises(
        SeewhyError,
        match=rf"no space in {own_cache}/datasets: 184,320 bytes are needed, 99 are free; .*_CACHE",
    ):
        load(NAME, quiet=True)
    assert entries(own_cache) == []


def test_a_full_disk_is_reported(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("seewhy.data.cache.os.fsync", full)
    with pytest.raises(
        SeewhyError,
        match=rf"no space in {own_cache}/datasets: 184,320 bytes are needed; .*SEEWHY_CACHE",
    ):
        load(NAME, quiet=True)
    assert entries(own_cache) == []


def test_an_unwritable_cache_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SEEWHY_CACHE", str(tmp_path / "file" / "below"))
    with pytest.raises(
        SeewhyError, match=r"cannot write the cache in .*Not a directory.*SEEWHY_CACHE"
    ):
        load(NAME, quiet=True)


def test_load_prints_progress_on_stderr_unless_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    load(NAME)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "decoding shapes at 32x32: 60 in " in captured.err
    load(NAME)
    load("shapes:train=30,test=20", quiet=True)
    assert capsys.readouterr() == ("", "")


@pytest.mark.slow
def test_load_from_the_cache_imports_no_heavy_library(tmp_path: Path) -> None:
    for split, count in (("train", 4), ("test", 2)):
        for label in ("a", "b"):
            (tmp_path / "set" / split / label).mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (4, 4), (i, i, 9)).save(
                    tmp_path / "set" / split / label / f"{i}.png"
                )
    load(tmp_path / "set", quiet=True)
    script = (
        f"import sys; from seewhy.data import load; load({str(tmp_path / 'set')!r}, quiet=True); "
        "heavy = 'datasets', 'pyarrow', 'pandas', 'sklearn', 'scipy', 'rich', 'huggingface_hub'; "
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_entry_follows_a_moved_directory_but_not_a_touched_file(
    tmp_path: Path, own_cache: Path
) -> None:
    for label in ("a", "b"):
        (tmp_path / "one" / "set" / label).mkdir(parents=True)
        for i in range(5):
            Image.new("L", (4, 4), i).save(tmp_path / "one" / "set" / label / f"{i}.png")
    load(tmp_path / "one" / "set", quiet=True)
    shutil.move(tmp_path / "one", tmp_path / "two")
    load(tmp_path / "two" / "set", quiet=True)
    assert len(entries(own_cache)) == 1
    os.utime(tmp_path / "two" / "set" / "a" / "3.png", ns=(1, 1))
    load(tmp_path / "two" / "set", quiet=True)
    assert len(entries(own_cache)) == 2


def bitmaps(root: Path, seed: int, count: int = 6, side: int = 8) -> Path:
    """Two classes of noise in files of one size, all of one time, as out of an archive."""
    generator = np.random.default_rng(seed)
    for label in ("a", "b"):
        (root / label).mkdir(parents=True)
        for i in range(count):
            path = root / label / f"{i}.bmp"
            Image.fromarray(generator.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(path)
            os.utime(path, ns=(10**18, 10**18))
    return root


def test_signature_differs_with_the_content_of_files(tmp_path: Path, own_cache: Path) -> None:
    first = load(bitmaps(tmp_path / "one" / "set", seed=0), quiet=True)
    second = load(bitmaps(tmp_path / "two" / "set", seed=1), quiet=True)
    assert first.fingerprint != second.fingerprint
    copy = shutil.copytree(tmp_path / "two", tmp_path / "three")  # with its times
    assert load(copy / "set", quiet=True).fingerprint == second.fingerprint
    assert len(entries(own_cache)) == 2


@pytest.mark.parametrize("place", [60, -60])
def test_signature_reads_both_ends_of_some_files(
    tmp_path: Path, own_cache: Path, place: int
) -> None:
    root = bitmaps(tmp_path / "set", seed=0, side=64)  # 12 kB each
    load(root, quiet=True)
    path = root / "b" / "5.bmp"
    content = bytearray(path.read_bytes())
    content[place] ^= 255
    path.write_bytes(content)
    os.utime(path, ns=(10**18, 10**18))
    load(root, quiet=True)
    assert len(entries(own_cache)) == 2


@pytest.mark.slow
def test_signature_reads_little_and_does_not_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = bitmaps(tmp_path / "set", seed=0, count=100, side=2)
    (root / "a" / "dead.bmp").symlink_to(tmp_path / "nowhere")
    os.mkfifo(root / "a" / "pipe.bmp")
    opened = []
    plain_open = Path.open
    monkeypatch.setattr(
        Path,
        "open",
        lambda path, *args, **kwargs: opened.append(path) or plain_open(path, *args, **kwargs),
    )
    assert directory_source(root).signature == directory_source(root).signature
    assert 100 < len(opened) <= 128
    assert {path.parent.name for path in opened} == {"a", "b"}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems count memory in other ways")
@pytest.mark.slow
def test_data_larger_than_the_memory_can_be_trained_on(tmp_path: Path) -> None:
    """In a process with a limit of 400 MB besides the mapping of a sparse file of 315 GB."""
    count, side = 400_000, 512
    try:
        (tmp_path / "train.images").touch()
        os.truncate(tmp_path / "train.images", count * 3 * side**2)
    except OSError:
        pytest.skip("this file system has no files of 315 GB")
    np.tile(np.array([0, 1], dtype="<i8"), count // 2).tofile(tmp_path / "train.labels")
    write_names(tmp_path, "train", [str(i) for i in range(count)], np.zeros(count, ORIGINAL))
    zeros = zlib.crc32(bytes(3 * side**2))  # an image is a block
    np.full(count, zeros, dtype="<u4").tofile(tmp_path / "train.images.crc")
    write_header(
        tmp_path,
        Header(("a", "b"), {"train": SplitHeader((count, 3, side, side), masks=False)}, "0", ()),
    )
    script = """
import resource, sys
from itertools import islice
from pathlib import Path
import torch
from seewhy.data import channel_statistics
from seewhy.data.augment import bind_augmentations
from seewhy.data.cache import read_entry
from seewhy.train.batches import batches, epoch_order

def kilobytes(field):
    (line,) = [line for line in open("/proc/self/status") if line.startswith(field + ":")]
    return int(line.split()[1])

split = read_entry(Path(sys.argv[1]))[1]["train"]
limit = kilobytes("VmData") * 1024 + 400 * 2**20
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
try:
    torch.ones(8192, 3, 512, 512, dtype=torch.uint8)
    sys.exit("the limit does not hold")
except RuntimeError:
    pass
model = torch.nn.Sequential(torch.nn.AvgPool2d(64), torch.nn.Flatten(), torch.nn.Linear(147, 2))
generator = torch.Generator().manual_seed(0)
order = epoch_order(len(split), seed=0, epoch=0)
augment, device = bind_augmentations(["resized-crop", "flip"]), torch.device("cpu")
stream = batches(split, 2, 8, order, 0, augment, generator, device, margin=32)
for images, labels in islice(stream, 5):
    torch.nn.functional.cross_entropy(model(images), labels).backward()
print(order[:40].max().item() > 200_000, model[2].weight.grad.isfinite().all().item())
print(channel_statistics(split.center_crop(32), max_images=16).max.tolist())
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("True True\n[0.0, 0.0, 0.0]\n", "")
