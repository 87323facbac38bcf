"""Run the benchmarks: `python -m benchmarks [CIFAR10]`.

The benchmarks on CIFAR-10 need the first argument of `seewhy.load`, a path or a name.
"""

import sys

from benchmarks import (
    cifar10,
    experiments,
    explaining,
    inference,
    loading,
    lr_finder,
    memory,
    overhead,
    pipeline,
    report,
    startup,
    steps,
    trust,
    tutorial,
)

startup.main()
steps.main()
inference.main()
memory.main()
tutorial.main()
overhead.main()
explaining.main()
trust.main()
if sys.argv[1:]:
    loading.main(sys.argv[1])
    pipeline.main(sys.argv[1])
    cifar10.main(sys.argv[1])
    lr_finder.main(sys.argv[1])
    experiments.main()
    report.main()
else:
    print(
        "skipped the benchmarks on CIFAR-10; run `make bench CIFAR10=path` or "
        "`make bench CIFAR10=cifar10`"
    )
