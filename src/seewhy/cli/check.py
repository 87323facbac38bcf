"""`seewhy check`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

from tyro.conf import OmitArgPrefixes, Positional, arg

from seewhy.cli.arguments import (
    DataOptions,
    Device,
    OptionalPath,
    OptionalText,
    Quiet,
    load_data,
)
from seewhy.cli.own_model import open_model
from seewhy.errors import lookup
from seewhy.files import check_output_file
from seewhy.progress import note
from seewhy.wording import counted, counted_splits

if TYPE_CHECKING:
    from seewhy.checks.result import Check as CheckResult
    from seewhy.checks.result import DataChecks

ALL = "all"
_EXAMPLES = 3  # printed of each check


@dataclass(frozen=True)
class Check:
    """Check labeled images: defects, copies, wrong labels, drift."""

    data: Annotated[Positional[str], arg(metavar="NAME|PATH")]
    """Dataset: a name, hub:owner/name, or the path of a directory or an archive."""
    loading: Annotated[OmitArgPrefixes[DataOptions], arg(name="data")] = field(
        default_factory=DataOptions
    )
    """How to load the data."""
    model: Annotated[str | None, arg(metavar="MODEL|RUN", help_behavior_hint="")] = None
    """Pretrained model for features, such as timm:resnet50 or NAME:weights=FILE, or a run."""
    only: OptionalText = None
    """Names of the checks to run, such as dark,blurry (default: all)."""
    output: OptionalPath = None
    """Directory for check.html, check.json, and a CSV file per check."""
    json: OptionalPath = None
    """File for the verdicts and findings as JSON."""
    junit: OptionalPath = None
    """File for JUnit XML, in which the checks of --fail-on can fail."""
    fail_on: OptionalText = None
    """Exit with code 1 if one of these checks finds something, such as duplicates,drift, or all."""
    device: Device = "auto"
    quiet: Quiet = False


def check(options: Check) -> int:
    """Print the verdicts and write them; returns 1 if a check of --fail-on found something."""
    from seewhy.checks.checker import CHECKS
    from seewhy.checks.checker import check as check_data
    from seewhy.checks.files import write_checks, write_json, write_junit
    from seewhy.checks.result import NOT_JUDGED
    from seewhy.cli.tables import console, print_path
    from seewhy.train.device import find_device

    fail_on = _names(options.fail_on, CHECKS)
    only = _names(options.only, CHECKS)
    for file in filter(None, (options.json, options.junit)):
        check_output_file(file)
    device = find_device(options.device)
    model = None if options.model is None else open_model(options.model, device)
    dataset = load_data(options.data, options.loading, quiet=options.quiet)
    results = check_data(dataset, model, only=only, quiet=options.quiet)
    if not options.quiet:
        _print_results(results)
    if options.output is not None:
        from seewhy.reporting.check_page import write_check_page

        write_checks(results, options.output)
        path = write_check_page(results, dataset, options.output)
        if not options.quiet:
            console().print("\na CSV file per check, check.json and check.html are written")
            print_path("open", path)
    if options.json is not None:
        write_json(results, options.json)
    if options.junit is not None:
        write_junit(results, options.junit, fail_on)
    for name in fail_on:
        if options.fail_on != ALL and name in results.checks:
            result = results[name]
            if result.verdict == NOT_JUDGED:
                note(f"seewhy: --fail-on {name} is not judged: {result.sentence}")
    failed = [name for name in results.found if name in fail_on]
    if failed:
        note(f"seewhy: --fail-on: {', '.join(failed)} found")
    return int(bool(failed))


def _names(text: str | None, table: Mapping[str, object]) -> tuple[str, ...]:
    """The names of checks in an option, separated by commas; `all` names all of them."""
    if text is None:
        return ()
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if names == (ALL,):
        return tuple(table)
    for name in names:
        lookup(table, name, "check")
    return names


def _print_results(results: "DataChecks") -> None:
    """The table of the checks, what was found with examples, and what was not judged."""
    from seewhy.checks.files import describe, number
    from seewhy.checks.result import FOUND, NOT_JUDGED
    from seewhy.cli.tables import console, table
    from seewhy.escaping import visible

    out = console()
    sizes, classes = counted_splits(results.images), counted(len(results.classes), "class")
    out.print(f"{visible(results.data)}: {sizes}, {classes}\n", style="bold")
    rows = table("check", "found", "worst", "limit", "verdict")
    rows.columns[-1].justify = "left"
    for name, result in results.checks.items():
        judged = result.verdict != NOT_JUDGED
        limit = "–"
        if result.threshold is not None:
            limit = f"{'<' if result.below else '>'} {number(result.threshold)}"
        rows.add_row(
            name,
            _found_text(result) if judged else "–",
            number(result.value),
            limit,
            result.verdict,
            style="bold" if result.verdict == FOUND else None,
        )
    out.print(rows)
    for name in results.found:
        result = results[name]
        out.print()
        out.print(f"{name}: {visible(result.sentence)}")
        for finding in result.findings[:_EXAMPLES]:
            out.print(f"  {visible(describe(finding))}", soft_wrap=True)
        if result.found > _EXAMPLES:
            out.print(f"  and {result.found - _EXAMPLES:,} more")
    reasons: dict[str, list[str]] = {}
    for name, result in results.checks.items():
        if result.verdict == NOT_JUDGED:
            reasons.setdefault(result.sentence, []).append(name)
    for reason, names in reasons.items():
        out.print()
        out.print(f"{', '.join(names)} not judged: {visible(reason)}")


def _found_text(result: "CheckResult") -> str:
    """`3 images`, `1 class`."""
    return counted(result.found, result.kind)
