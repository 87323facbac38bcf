"""Numbers with their nouns."""

from seewhy.wording import be, counted, counted_splits, have


def test_counted() -> None:
    assert [counted(number, "test image") for number in (0, 1, 1200)] == [
        "0 test images",
        "1 test image",
        "1,200 test images",
    ]
    assert [counted(2, noun) for noun in ("class", "property")] == ["2 classes", "2 properties"]


def test_verbs_agree_with_their_number() -> None:
    assert [be(number) for number in (0, 1, 2)] == ["are", "is", "are"]
    assert [have(number) for number in (0, 1, 2)] == ["have", "has", "have"]


def test_counted_splits() -> None:
    assert counted_splits({"train": 2450, "test": 1}) == "2,450 train, 1 test image"
    assert counted_splits({"test": 2}) == "2 test images"
