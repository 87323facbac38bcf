"""Models of timm, torchvision and transformers; `make test-zoo` needs these packages."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("timm") else ["test_*.py"]
