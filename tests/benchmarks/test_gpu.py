"""The benchmarks for a GPU, run without one."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import gpu


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with `cifar10/`: ten training and two test images of each of ten classes."""
    directory = tmp_path_factory.mktemp("gpu")
    generator = np.random.default_rng(0)
    for split, count in (("train", 10), ("test", 2)):
        for label in range(10):
            folder = directory / "cifar10" / split / f"class{label}"
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")
    return directory


@pytest.mark.slow
@pytest.mark.train
@pytest.mark.usefixtures("blank_figures")
def test_every_measurement_is_made_once(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "SEEDS", 2)
    output = tmp_path / "results"
    arguments = [str(directory), "--device", "cpu", "--tiny", "--seconds", "1000"]
    assert gpu.main([*arguments, "--output", str(output)]) == 0
    assert [path.name for path in output.iterdir()] == ["results.jsonl"]
    results = gpu.read_results(output / "results.jsonl")
    assert [result["key"] for result in results] == [each.key for each in gpu.measurements()]
    assert not [result for result in results if gpu.FAILED in result]
    for result in results:  # the CPU equals itself
        if "against the CPU" in str(result["key"]) or "resumed" in str(result["key"]):
            assert 0 in (result.get("largest difference"), result.get("relative difference"))
    rows = {row.what: row for row in gpu.rows_of(results)}
    assert rows["speedrun94: accuracy"].how.endswith("2 seeds")
    assert "±" in rows["speedrun94: wall seconds"].value
    assert not [what for what in rows if "seed 1" in what]


@pytest.mark.slow
def test_measurements_that_exist_or_do_not_fit_are_skipped(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    wanted = [
        gpu.Measurement(key, seconds, lambda bench, k=key: calls.append(k) or {"value": 1.0})
        for key, seconds in (("known", 1), ("failed before", 1), ("long", 1000), ("new", 1))
    ]
    monkeypatch.setattr(gpu, "measurements", lambda: iter(wanted))
    lines = [{"key": "known", "value": 2.0}, {"key": "failed before", gpu.FAILED: "OSError"}]
    (tmp_path / "old.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    arguments = [str(directory), "--device", "cpu", "--seconds", "60"]
    skip = ["--skip", str(tmp_path / "old.jsonl"), "--output", str(tmp_path / "out")]
    assert gpu.main([*arguments, *skip]) == 0
    assert calls == ["failed before", "new"]


@pytest.mark.slow
def test_a_failure_is_a_line_and_the_next_measurement_follows(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(bench: gpu.Bench) -> dict[str, object]:
        raise RuntimeError("out of memory")

    wanted = [
        gpu.Measurement("broken", 1, broken),
        gpu.Measurement("next", 1, lambda bench: {"value": 1.0}),
    ]
    monkeypatch.setattr(gpu, "measurements", lambda: iter(wanted))
    arguments = [str(directory), "--device", "cpu", "--output", str(tmp_path)]
    assert gpu.main(arguments) == 0
    first, second = gpu.read_results(tmp_path / "results.jsonl")
    assert first[gpu.FAILED] == "RuntimeError: out of memory"
    assert second["value"] == 1.0
