"""Where the rows, frames, and wires of a drawn model are."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, groupby

from seewhy.models.graph import IMAGE, ModelGraph, Step

Point = tuple[float, float]

MAX_ROWS = 64  # beyond them, blocks become boxes
MAX_LANES = 7
TOP, BOTTOM = 0.82, 0.12  # inches above the first row and below the last one
ROW, BOX, CIRCLE = 0.32, 0.21, 0.19  # heights
HEADER, FRAME_PAD, FRAME_GAP = 0.26, 0.06, 0.06
MAIN, MAIN_OF_MANY = 2.31, 2.9  # x of the main lane; where others are beside it
LEFT, RIGHT = 0.2, 3.9  # of the boxes
MAIN_LEFT = 0.72  # left edge of a box on the main lane, unless a wire passes
FIRST_LANE, LANE = 0.4, 0.24  # of the wires on the left: the first one, and the distance
CLEARANCE = 0.14  # between a box and a wire that passes
FRAME_LEFT, FRAME_RIGHT = 0.08, 7.12
BRANCH = 0.08  # above a box, a wire branches
CIRCLED = ("add", "multiply", "subtract", "concat")  # joins that are drawn as a circle


@dataclass(frozen=True)
class Row:
    """A box or a join, with its numbers."""

    operations: tuple[str, ...]
    layer: str  # path within the block
    count: int  # equal ones in a row
    is_join: bool
    is_block: bool  # a whole block as a box
    shape: tuple[int, ...]
    parameters: int
    multiply_adds: int
    x: float  # of the lane
    y: float
    left: float
    right: float
    top: float
    bottom: float


@dataclass(frozen=True)
class Frame:
    """A block: a frame around rows."""

    name: str
    type: str
    count: int
    shape: tuple[int, ...]
    parameters: int
    multiply_adds: int
    left: float
    right: float
    top: float
    bottom: float
    x: float  # of the wire that enters it


@dataclass(frozen=True)
class Wire:
    """A line, upright and level by turns."""

    points: tuple[Point, ...]
    arrow: bool


@dataclass(frozen=True)
class Layout:
    """Everything to draw, in inches from the top left."""

    rows: tuple[Row, ...]
    frames: tuple[Frame, ...]
    wires: tuple[Wire, ...]
    height: float


@dataclass(frozen=True)
class _Section:
    """A block's steps, or one step outside blocks; `steps` are those of the first of `count`."""

    block: str
    steps: tuple[int, ...]
    count: int = 1
    last_block: str = ""  # if there are several


@dataclass(frozen=True)
class _Lane:
    """Where a wire runs down: on the left, or number `index` from the main lane (0)."""

    on_left: bool
    index: int


MAIN_LANE = _Lane(on_left=False, index=0)


@dataclass
class _Value:
    """The image (row -1) or the output of a row on its way down."""

    row: int
    lane: _Lane
    uses: tuple[int, ...]  # rows that read it, in order
    later_lane: _Lane | None = None  # below its first use, if there are more

    def lane_at(self, row: int) -> _Lane | None:
        """The lane on which it passes a row; None if it does not."""
        if not self.uses or not self.row < row < self.uses[-1]:
            return None
        return self.lane if row < self.uses[0] else self.later_lane


@dataclass(frozen=True)
class _Plan:
    """Which step each row shows, what it reads, and in which lanes; nothing is measured yet."""

    steps: Sequence[Step]
    boxes: frozenset[str]  # paths of blocks that are drawn as one box
    sections: Sequence[_Section]
    rows: Sequence[int]  # step of each row
    inputs: Sequence[tuple[int, ...]]  # of each row: rows, or -1 for the image
    values: Sequence[_Value]  # of the image and of each row
    lanes: Sequence[_Lane] = field(default=())

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


def layout_model(graph: ModelGraph) -> Layout:
    """Lay out the steps of a model, one row each; of equal neighbors only the first one."""
    plan, paths = _plan(graph.steps), list(graph.blocks)
    while plan.is_large and paths:
        plan = _plan(_merged(graph, paths), frozenset(paths))
        paths = list(dict.fromkeys(filter(None, (path.rpartition(".")[0] for path in paths))))
    return _placed(graph, plan)


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


def _plan(steps: Sequence[Step], boxes: frozenset[str] = frozenset()) -> _Plan:
    sections, shown = _folded(steps, _sections(steps))
    rows = [step for section in sections for step in section.steps]
    row_of = {step: row for row, step in enumerate(rows)} | {IMAGE: -1}
    inputs = [
        tuple(dict.fromkeys(row_of[shown.get(source, source)] for source in steps[step].inputs))
        for step in rows
    ]
    return _Plan(steps, boxes, sections, rows, inputs, _values(inputs))


def _sections(steps: Sequence[Step]) -> list[_Section]:
    sections: list[_Section] = []
    for index, step in enumerate(steps):
        if step.block and sections and sections[-1].block == step.block:
            sections[-1] = _Section(step.block, (*sections[-1].steps, index))
        else:
            sections.append(_Section(step.block, (index,)))
    return sections


def _folded(
    steps: Sequence[Step], sections: Sequence[_Section]
) -> tuple[list[_Section], dict[int, int]]:
    """Sections with equal neighbors counted, and the step that is shown for each left-out one."""
    folded: list[_Section] = []
    shown: dict[int, int] = {}
    before: _Section | None = None  # the section before, whether shown or not
    for section in sections:
        reads_before = before is not None and _outside(steps, section) == {before.steps[-1]}
        if folded and reads_before and _signature(steps, folded[-1]) == _signature(steps, section):
            first = folded[-1]
            folded[-1] = _Section(first.block, first.steps, first.count + 1, section.block)
            shown |= dict(zip(section.steps, first.steps, strict=True))
        else:
            folded.append(section)
        before = section
    return folded, shown


def _outside(steps: Sequence[Step], section: _Section) -> set[int]:
    return {source for step in section.steps for source in steps[step].inputs} - {*section.steps}


def _signature(steps: Sequence[Step], section: _Section) -> object:
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


def _values(inputs: Sequence[tuple[int, ...]]) -> list[_Value]:
    """The image and the rows' outputs, with lanes so that no wire runs through a box."""
    uses = {
        row: tuple(reader for reader, sources in enumerate(inputs) if row in sources)
        for row in range(-1, len(inputs))
    }
    values = [_Value(-1, MAIN_LANE, uses[-1])]
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
        values.append(_Value(row, lane, uses[row]))
    return values


def _free(taken: set[_Lane | None], on_left: bool) -> _Lane:
    index = 0
    while _Lane(on_left, index) in taken:
        index += 1
    return _Lane(on_left, index)


def _placed(graph: ModelGraph, plan: _Plan) -> Layout:
    """Rows from top to bottom, with frames around blocks and wires between them."""
    main = MAIN if plan.branches == 0 else MAIN_OF_MANY
    last_left = FIRST_LANE + LANE * max(plan.on_left - 1, 0)

    def x_of(lane: _Lane) -> float:
        if lane.on_left:
            return FIRST_LANE + LANE * lane.index
        return main - lane.index * (main - last_left) / (plan.branches + 1)

    y = TOP + ROW / 2
    image = _image_row(graph, main, y)
    y += ROW
    rows: list[Row] = []
    frames: list[Frame] = []
    for section in plan.sections:
        top = y - ROW / 2 + (FRAME_GAP if section.block else 0)
        y += FRAME_GAP + HEADER if section.block else 0
        for step in section.steps:
            count = 1 if section.block else section.count
            rows.append(_row(plan, len(rows), plan.steps[step], count, y, x_of, section.block))
            y += ROW
        if section.block:
            frames.append(_frame(graph, plan, section, top, y - ROW / 2 + FRAME_PAD, main))
            y += FRAME_PAD + FRAME_GAP
    wires = _wires(plan, [image, *rows], x_of)
    return Layout((image, *rows), tuple(frames), tuple(wires), y - ROW / 2 + BOTTOM)


def _image_row(graph: ModelGraph, x: float, y: float) -> Row:
    edges = (x - 0.4, x + 0.4, y - BOX / 2, y + BOX / 2)
    return Row(("image",), "", 1, False, False, graph.image_shape, 0, 0, x, y, *edges)


def _row(
    plan: _Plan,
    row: int,
    step: Step,
    count: int,
    y: float,
    x_of: Callable[[_Lane], float],
    block: str,
) -> Row:
    lane = plan.values[row + 1].lane
    x = x_of(lane)
    is_join = len(plan.inputs[row]) > 1 and step.operations[0] in CIRCLED
    passing = [x_of(each) for value in plan.values if (each := value.lane_at(row)) is not None]
    edge = MAIN_LEFT if lane == MAIN_LANE else LEFT
    left = max([edge, *(each + CLEARANCE for each in passing if each < x)])
    right = min([RIGHT, *(each - CLEARANCE for each in passing if each > x)])
    height = CIRCLE if is_join else BOX
    if is_join:
        left, right = x - CIRCLE / 2, x + CIRCLE / 2
    return Row(
        operations=step.operations,
        layer=step.layer.removeprefix(f"{block}.") if block else step.layer,
        count=count,
        is_join=is_join,
        is_block=step.layer in plan.boxes and not step.block,
        shape=step.shape,
        parameters=step.parameters * count,
        multiply_adds=step.multiply_adds * count,
        x=x,
        y=y,
        left=left,
        right=right,
        top=y - height / 2,
        bottom=y + height / 2,
    )


def _frame(
    graph: ModelGraph, plan: _Plan, section: _Section, top: float, bottom: float, x: float
) -> Frame:
    steps = [plan.steps[index] for index in section.steps]
    return Frame(
        name=_range(section.block, section.last_block),
        type=graph.types[section.block],
        count=section.count,
        shape=steps[-1].shape,
        parameters=section.count * sum(step.parameters for step in steps),
        multiply_adds=section.count * sum(step.multiply_adds for step in steps),
        left=FRAME_LEFT,
        right=FRAME_RIGHT,
        top=top,
        bottom=bottom,
        x=x,
    )


def _range(first: str, last: str) -> str:
    """`blocks.0` and `blocks.11` as `blocks.0–11`."""
    return f"{first}–{last.rpartition('.')[2]}" if last else first


def _wires(plan: _Plan, rows: Sequence[Row], x_of: Callable[[_Lane], float]) -> list[Wire]:
    """The wires of each value to the rows that read it; `rows` begin with the image."""
    wires: list[Wire] = []
    for value, start in zip(plan.values, rows, strict=True):
        x = x_of(value.lane)
        readers = [rows[use + 1] for use in value.uses]
        if not readers:
            continue
        several = [len(plan.inputs[use]) > 1 for use in value.uses]
        wires.append(Wire(((x, start.bottom), *_entrance(x, readers[0], several[0])), True))
        if value.later_lane is None:
            continue
        branch = (x, readers[0].top - BRANCH)
        x = x_of(value.later_lane)
        for reader, joins in zip(readers[1:], several[1:], strict=True):
            corner = [] if branch[0] == x else [(x, branch[1])]
            wires.append(Wire((branch, *corner, *_entrance(x, reader, joins)), True))
            branch = (x, wires[-1].points[-2][1])
    return wires


def _entrance(x: float, row: Row, joins: bool) -> list[Point]:
    """The last points of a wire that comes down at `x` into a row."""
    if x == row.x:
        return [(x, row.top)]
    if joins:  # from the side
        return [(x, row.y), (row.left if x < row.x else row.right, row.y)]
    height = row.top - BRANCH
    return [(x, height), (row.x, height), (row.x, row.top)]
