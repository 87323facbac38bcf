"""Defects of the images in a folder as cleanvision finds them: `python checks_peer.py FOLDER`.

Runs in a Python of its own, without seewhy. The last line of the output is JSON: the names of the
files, by issue.
"""

import json
import sys
from pathlib import Path

from cleanvision import Imagelab  # type: ignore[import-not-found]

ISSUES = ("dark", "light", "blurry", "low_information")

if __name__ == "__main__":
    lab = Imagelab(data_path=sys.argv[1])
    lab.find_issues({name: {} for name in ISSUES}, n_jobs=1, verbose=False)
    found = {
        name: [Path(file).name for file in lab.issues.index[lab.issues[f"is_{name}_issue"]]]
        for name in ISSUES
    }
    print(json.dumps(found))
