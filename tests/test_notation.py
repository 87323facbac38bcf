from collections.abc import Sequence
from typing import Any, Literal

import pytest

from seewhy.errors import SeewhyError
from seewhy.notation import bind, parse, remove_argument


def paint(
    batch: str,
    size: int = 4,
    mode: Literal["reflect", "constant"] = "reflect",
    strength: float = 0.5,
    fast: bool = False,
) -> tuple[Any, ...]:
    return batch, size, mode, strength, fast


def needy(batch: str, path: str) -> tuple[str, str]:
    return batch, path


SETTINGS = "size, mode, strength, fast"
TABLE = {"paint": paint, "needy": needy}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("crop", ("crop", [], {})),
        ("crop:4", ("crop", ["4"], {})),
        ("crop:4,mode=constant", ("crop", ["4"], {"mode": "constant"})),
        ("sgd:momentum=0.90,nesterov=True", ("sgd", [], {"momentum": "0.90", "nesterov": "True"})),
        ("one-cycle:final-div=1e4", ("one-cycle", [], {"final_div": "1e4"})),
        ("hub:owner/name", ("hub", ["owner/name"], {})),
        ("multi-step:[0.5, 0.75],factor=0.1", ("multi-step", ["[0.5, 0.75]"], {"factor": "0.1"})),
        ("crop:sizes=[[1,2],[3]],mode=x", ("crop", [], {"sizes": "[[1,2],[3]]", "mode": "x"})),
        ("hub:owner/name,config=a=b", ("hub", ["owner/name"], {"config": "a=b"})),
    ],
)
def test_parse(text: str, expected: tuple[Any, ...]) -> None:
    assert parse(text) == expected


def test_bind_reads_values_without_a_hint_by_their_form() -> None:
    def anything(a, b, c, d):  # type: ignore[no-untyped-def]
        return a, b, c, d

    assert bind({"anything": anything}, "anything:4,b=x,c=TRUE,d=1e4", "step", 0)() == (
        4,
        "x",
        True,
        1e4,
    )


def test_bind_reads_hints_for_type_checkers() -> None:
    def crop(
        image: "Image",  # noqa: F821
        size: "int",
        strength: "float" = 0.5,
        tag: "str" = "",
        mode: "Mode" = 1,  # noqa: F821
    ) -> "Image":  # noqa: F821
        return image, size, strength, tag, mode

    found = bind({"crop": crop}, "crop:4,1,007,mode=2", "step", n_supplied=1)("image")
    assert found == ("image", 4, 1.0, "007", 2)
    assert type(found[2]) is float
    with pytest.raises(SeewhyError, match="size must be int, found 'big'"):
        bind({"crop": crop}, "crop:big", "step", n_supplied=1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("crop", "crop"),
        ("crop:007,weights=true", "crop:007"),
        ("crop:007,true", "crop:007"),
        ("crop:007,true,1.50,mode=a=b", "crop:007,size=1.50,mode=a=b"),
        ("crop:weights=1e3,tag=0012,size=1_0", "crop:tag=0012,size=1_0"),
        ("plain:True,1.0", "plain:True,1.0"),
        ("crop:1,2,3,4,5", "crop:1,2,3,4,5"),  # too many: bind will say so
    ],
)
def test_remove_argument_keeps_the_rest_as_written(text: str, expected: str) -> None:
    def crop(
        batch: str, tag: str = "", weights: bool = False, size: float = 1, mode: str = ""
    ) -> None: ...

    def plain(batch: str, fast: bool = False, size: float = 1) -> None: ...

    assert (
        remove_argument(
            {"crop": crop, "plain": plain}, text, "step", n_supplied=1, argument="weights"
        )
        == expected
    )


def test_bind_skips_supplied_parameters() -> None:
    assert bind(TABLE, "paint", "step", n_supplied=1)("b") == ("b", 4, "reflect", 0.5, False)
    assert bind(TABLE, "paint:7,strength=2,fast=true", "step", n_supplied=1)("b") == (
        "b",
        7,
        "reflect",
        2.0,
        True,
    )


def test_bind_converts_an_integer_to_a_float() -> None:
    bound = bind(TABLE, "paint:strength=1", "step", n_supplied=1)
    assert type(bound.keywords["strength"]) is float


def test_bind_keeps_a_number_as_text() -> None:
    assert bind(TABLE, "needy:123", "step", n_supplied=1)("b") == ("b", "123")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pant", "unknown step 'pant' (did you mean 'paint'?); possible: needy, paint"),
        (
            "paint:sise=3",
            "step 'paint:sise=3': paint has no argument 'sise' (did you mean 'size'?); "
            f"it takes {SETTINGS}",
        ),
        (
            "paint:1,2,3,4,5",
            "step 'paint:1,2,3,4,5': paint takes size, mode, strength, fast, found 5 values",
        ),
        (
            "paint:mode=reflekt",
            "'paint:mode=reflekt': unknown mode 'reflekt' (did you mean 'reflect'?); "
            "possible: reflect, constant",
        ),
        ("paint:1,size=2", "step 'paint:1,size=2': 'size' is set twice; remove one of the two"),
        ("paint:size=big", "'paint:size=big': size must be int, found 'big'"),
        ("paint:size=1.5", "'paint:size=1.5': size must be int, found 1.5"),
        (
            "paint:size=1,size=2",
            "'paint:size=1,size=2': 'size' is set twice; remove one of the two",
        ),
        ("paint:strength=inf", "'paint:strength=inf': strength must be a finite number, found inf"),
        (
            "paint:strength=-Infinity",
            "'paint:strength=-Infinity': strength must be a finite number, found -Infinity",
        ),
        ("paint:strength=nan", "'paint:strength=nan': strength must be a finite number, found nan"),
        (
            "paint:strength=1e999",
            "'paint:strength=1e999': strength must be a finite number, found 1e999",
        ),
        ("paint:fast=1", "'paint:fast=1': fast must be bool, found 1"),
        (
            "paint:size=2,reflect",
            "'paint:size=2,reflect': 'reflect' follows a key=value; "
            "give it a key, or move it to the front",
        ),
        ("needy", "step 'needy': needy needs path, as in needy:path=…"),
        (
            "paint:batch=1",
            f"step 'paint:batch=1': paint has no argument 'batch'; it takes {SETTINGS}",
        ),
    ],
)
def test_bind_names_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(SeewhyError) as caught:
        bind(TABLE, text, "step", n_supplied=1)
    assert str(caught.value) == message


def crop_to(
    batch: str,
    sizes: Sequence[int] = (4,),
    box: tuple[int, int, float, float] = (0, 0, 1.0, 1.0),
    names: list[str] = [],  # noqa: B006
    mode: str = "",
    pairs: Sequence[tuple[int, float]] = (),
) -> tuple[Any, ...]:
    return sizes, box, names, mode, pairs


@pytest.mark.parametrize(
    ("text", "argument", "value"),
    [
        ("crop-to:[1,2,3]", "sizes", (1, 2, 3)),
        ("crop-to:sizes=[ 7 ]", "sizes", (7,)),
        ("crop-to:sizes=[]", "sizes", ()),
        ("crop-to:box=[1,2,3,4.5],mode=a", "box", (1, 2, 3.0, 4.5)),
        ("crop-to:names=[007,a=b,x]", "names", ("007", "a=b", "x")),
        ("crop-to:mode=[1,2]", "mode", "[1,2]"),  # text stays as written
        ("crop-to:pairs=[[1,2],[3,4]]", "pairs", ((1, 2.0), (3, 4.0))),
    ],
)
def test_bind_converts_the_items_of_lists(text: str, argument: str, value: object) -> None:
    bound = bind({"crop-to": crop_to}, text, "step", n_supplied=1).keywords[argument]
    assert bound == value
    assert repr(bound) == repr(value)  # 3.0 and not 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sizes=4", "sizes must be a list [VALUE,VALUE], found '4'"),
        ("sizes=[1,b]", "sizes[1] must be int, found 'b'"),
        ("sizes=[1,nan]", "sizes[1] must be a finite number, found nan"),
        ("box=[1,2]", "box must be a list of 4 values, [VALUE,VALUE,VALUE,VALUE], found '[1,2]'"),
        ("box=[1.5,2,3,4]", "box[0] must be int, found 1.5"),
        ("sizes=[1,2", "unbalanced brackets; a list is written [VALUE,VALUE], as in [0.5,0.75]"),
        ("sizes=1],mode=a", "unbalanced brackets; a list is written [VALUE,VALUE]"),
    ],
)
def test_bind_names_the_wrong_item_of_a_list(text: str, message: str) -> None:
    with pytest.raises(SeewhyError) as caught:
        bind({"crop-to": crop_to}, f"crop-to:{text}", "step", n_supplied=1)
    assert str(caught.value).startswith(f"'crop-to:{text}': {message}")
