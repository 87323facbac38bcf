"""Which steps of a model a drawing shows, and in which lanes their wires run."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, groupby

from seewhy.models.graph import IMAGE, ModelGraph, Step

MAX_ROWS = 64  # beyond them, blocks become boxes
MAX_LANES = 7


@dataclass(frozen=True)
class Section:
    """A block's steps, or one step outside blocks; `steps` are those of the first of `count`."""

    block: str
    steps: tuple[int, ...]
    count: int = 1
    last_block: str = ""  # if there are several


@dataclass(frozen=True)
class Lane:
    """Where a wire runs down: on the left, or number `index` from the main lane (0)."""

    on_left: bool
    index: int


MAIN_LANE = Lane(on_left=False, index=0)


@dataclass
class Value:
    """The image (row -1) or the output of a row on its way down."""

    row: int
    lane: Lane
    uses: tuple[int, ...]  # rows that read it, in order
    later_lane: Lane | None = None  # below its first use, if there are more

    def lane_at(self, row: int) -> Lane | None:
        """The lane on which it passes a row; None if it does not."""
        if not self.uses or not self.row < row < self.uses[-1]:
            return None
        return self.lane if row < self.uses[0] else self.later_lane


@dataclass(frozen=True)
class Plan:
    """Which step each row shows, what it reads, and in which lanes; nothing is measured yet."""

    steps: Sequence[Step]
    boxes: frozenset[str]  # paths of blocks that are drawn as one box
    sections: Sequence[Section]
    rows: Sequence[int]  # step of each row
    inputs: Sequence[tuple[int, ...]]  # of each row: rows, or -1 for the image
    values: Sequence[Value]  # of the image and of each row

    @cached_property
    def branches(self) -> int:
        """Lanes beside the main lane."""
        return max((value.lane.index for value in self.values if not value.lane.on_left), default=0)

    @cached_property
    def on_left(self) -> int:
        """Lanes on the left."""
        lanes = [value.later_lane for value in self.values if value.later_lane is not None]
        return max((lane.index + 1 for lane in lanes if lane.on_left), default=0)

    @property
    def is_large(self) -> bool:
        titles = sum(bool(section.block) for section in self.sections)
        return len(self.rows) + titles > MAX_ROWS or self.branches + self.on_left > MAX_LANES


def plan_drawing(graph: ModelGraph) -> Plan:
    """Plan one row for each step; of equal neighbors only the first one is shown."""
    plan, paths = _plan(graph.steps), list(graph.blocks)
    while plan.is_large and paths:
        plan = _plan(_merged(graph, paths), frozenset(paths))
        paths = list(dict.fromkeys(filter(None, (path.rpartition(".")[0] for path in paths))))
    return plan


def _merged(graph: ModelGraph, paths: Sequence[str]) -> list[Step]:
    """The steps of a model, with those inside each of the paths merged into one."""

    def owner(step: Step) -> str:
        path = step.block or step.module
        return next((each for each in paths if f"{path}.".startswith(f"{each}.")), "")

    merged: list[Step] = []
    new_index = {IMAGE: IMAGE}
    for path, group in groupby(enumerate(graph.steps), lambda pair: owner(pair[1])):
        members = list(group)
        for one in [members] if path else [[member] for member in members]:
            inside = {index for index, _ in one}
            sources = chain.from_iterable(step.inputs for _, step in one)
            outside = dict.fromkeys(new_index[each] for each in sources if each not in inside)
            for index in inside:
                new_index[index] = len(merged)
            last = one[-1][1]
            merged.append(
                Step(
                    operations=(graph.types[path],) if path else last.operations,
                    module=path or last.module,
                    layer=path or last.layer,
                    block="",
                    inputs=tuple(outside),
                    shape=last.shape,
                    parameters=sum(step.parameters for _, step in one),
                    multiply_adds=sum(step.multiply_adds for _, step in one),
                )
            )
    return merged


def _plan(steps: Sequence[Step], boxes: frozenset[str] = frozenset()) -> Plan:
    sections, shown = _folded(steps, _sections(steps))
    rows = [step for section in sections for step in section.steps]
    row_of = {step: row for row, step in enumerate(rows)} | {IMAGE: -1}
    inputs = [
        tuple(dict.fromkeys(row_of[shown.get(source, source)] for source in steps[step].inputs))
        for step in rows
    ]
    return Plan(steps, boxes, sections, rows, inputs, _values(inputs))


def _sections(steps: Sequence[Step]) -> list[Section]:
    sections: list[Section] = []
    for index, step in enumerate(steps):
        if step.block and sections and sections[-1].block == step.block:
            sections[-1] = Section(step.block, (*sections[-1].steps, index))
        else:
            sections.append(Section(step.block, (index,)))
    return sections


def _folded(
    steps: Sequence[Step], sections: Sequence[Section]
) -> tuple[list[Section], dict[int, int]]:
    """Sections with equal neighbors counted, and the step that is shown for each left-out one."""
    folded: list[Section] = []
    shown: dict[int, int] = {}
    before: Section | None = None  # the section before, whether shown or not
    for section in sections:
        reads_before = before is not None and _outside(steps, section) == {before.steps[-1]}
        if folded and reads_before and _signature(steps, folded[-1]) == _signature(steps, section):
            first = folded[-1]
            folded[-1] = Section(first.block, first.steps, first.count + 1, section.block)
            shown |= dict(zip(section.steps, first.steps, strict=True))
        else:
            folded.append(section)
        before = section
    return folded, shown


def _outside(steps: Sequence[Step], section: Section) -> set[int]:
    return {source for step in section.steps for source in steps[step].inputs} - {*section.steps}


def _signature(steps: Sequence[Step], section: Section) -> object:
    """What two equal blocks have in common."""
    outside = len(_outside(steps, section))
    first = section.steps[0]
    return outside, [
        (
            step.operations,
            step.shape,
            step.parameters,
            step.multiply_adds,
            [source - first if source >= first else None for source in step.inputs],
        )
        for step in (steps[index] for index in section.steps)
    ]


def _values(inputs: Sequence[tuple[int, ...]]) -> list[Value]:
    """The image and the rows' outputs, with lanes so that no wire runs through a box."""
    uses = {
        row: tuple(reader for reader, sources in enumerate(inputs) if row in sources)
        for row in range(-1, len(inputs))
    }
    values = [Value(-1, MAIN_LANE, uses[-1])]
    for row, sources in enumerate(inputs):
        taken = {value.lane_at(row) for value in values}
        for value in values:
            if value.uses[:1] == (row,) and len(value.uses) > 1:
                value.later_lane = value.lane if value.lane.on_left else _free(taken, on_left=True)
                taken.add(value.later_lane)
        ending = [
            value.later_lane or value.lane
            for value in values
            if value.row in sources and value.uses[-1] == row
        ]
        beside = [lane for lane in ending if lane != MAIN_LANE and lane not in taken]
        if MAIN_LANE not in taken:
            lane = MAIN_LANE
        else:
            lane = beside[0] if beside else _free(taken, on_left=False)
        values.append(Value(row, lane, uses[row]))
    return values


def _free(taken: set[Lane | None], on_left: bool) -> Lane:
    index = 0
    while Lane(on_left, index) in taken:
        index += 1
    return Lane(on_left, index)
