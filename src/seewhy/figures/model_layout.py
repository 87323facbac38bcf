"""Where the rows, frames, and wires of a drawn model are."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from seewhy.figures.model_plan import MAIN_LANE, Lane, Plan, Section, plan_drawing
from seewhy.models.graph import ModelGraph, Step

Point = tuple[float, float]

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


def layout_model(graph: ModelGraph) -> Layout:
    """Lay out a model from top to bottom, with frames around blocks and wires between rows."""
    plan = plan_drawing(graph)
    main = MAIN if plan.branches == 0 else MAIN_OF_MANY
    last_left = FIRST_LANE + LANE * max(plan.on_left - 1, 0)

    def x_of(lane: Lane) -> float:
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
    plan: Plan,
    row: int,
    step: Step,
    count: int,
    y: float,
    x_of: Callable[[Lane], float],
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
    graph: ModelGraph, plan: Plan, section: Section, top: float, bottom: float, x: float
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


def _wires(plan: Plan, rows: Sequence[Row], x_of: Callable[[Lane], float]) -> list[Wire]:
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
