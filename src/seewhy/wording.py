"""Words for numbers."""

from collections.abc import Mapping


def counted(number: float, noun: str) -> str:
    """A number and its noun: `1 image`, `1,200 images`, `0.5 epochs`, `2 classes`."""
    if number == 1:
        return f"1 {noun}"
    if noun.endswith("y"):
        noun = f"{noun[:-1]}ie"
    elif noun.endswith("s"):
        noun += "e"
    text = f"{number:,}" if number >= 1000 else f"{number:g}"
    return f"{text} {noun}s"


def be(number: float) -> str:
    """`is` or `are`, after a number: `1 of 20 images is`."""
    return "is" if number == 1 else "are"


def have(number: float) -> str:
    """`has` or `have`, after a number."""
    return "has" if number == 1 else "have"


def counted_splits(images: Mapping[str, int]) -> str:
    """The numbers of images of splits: `245 train, 153 test images`."""
    *others, (last, number) = images.items()
    parts = [f"{count:,} {split}" for split, count in others]
    return ", ".join([*parts, counted(number, f"{last} image")])
