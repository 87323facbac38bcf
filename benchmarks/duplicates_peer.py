"""Duplicates in a folder as another package finds them: `python duplicates_peer.py NAME FOLDER`.

Runs in a Python of its own, without seewhy. The last line of the output is JSON: groups of file
names, or null if the package is missing, and the processor time in seconds.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

Groups = list[list[str]]


def imagededup(folder: str) -> Callable[[], Groups]:
    """PHash, at most 10 of 64 bits apart, which is its default."""
    from imagededup.methods import PHash  # type: ignore[import-not-found]

    def find() -> Groups:
        finder = PHash(verbose=False)
        hashes = finder.encode_images(folder, num_enc_workers=0)
        found = finder.find_duplicates(encoding_map=hashes, num_dist_workers=0)
        return [[name, other] for name, others in found.items() for other in others]

    return find


def cleanvision(folder: str) -> Callable[[], Groups]:
    """Images with an equal perceptual or wavelet hash, and equal files."""
    from cleanvision import Imagelab  # type: ignore[import-not-found]

    def find() -> Groups:
        lab = Imagelab(data_path=folder)
        kinds = ("near_duplicates", "exact_duplicates")
        lab.find_issues({kind: {} for kind in kinds}, n_jobs=1, verbose=False)
        return [
            [Path(name).name for name in group]
            for kind in kinds
            for group in lab.info[kind]["sets"]
        ]

    return find


def _processor_time() -> float:
    return sum(os.times()[:4])


if __name__ == "__main__":
    name, folder = sys.argv[1:]
    try:
        find = {"imagededup": imagededup, "cleanvision": cleanvision}[name](folder)
    except ImportError as error:
        print(f"{name}: {error}", file=sys.stderr)
        print(json.dumps({"groups": None, "seconds": 0}))
    else:
        before = _processor_time()
        groups = find()
        print(json.dumps({"groups": groups, "seconds": _processor_time() - before}))
