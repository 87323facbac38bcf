import pytest

from seewhy.errors import SeewhyError, lookup


def test_lookup_suggests_the_nearest_name_and_lists_all() -> None:
    table = {"resnet18": 1, "vgg16": 2}
    assert lookup(table, "vgg16", "model") == 2
    with pytest.raises(SeewhyError) as caught:
        lookup(table, "resnet81", "model")
    assert (
        str(caught.value)
        == "unknown model 'resnet81' (did you mean 'resnet18'?); possible: resnet18, vgg16"
    )


def test_lookup_suggests_nothing_where_nothing_is_near() -> None:
    with pytest.raises(SeewhyError, match=r"^unknown model 'zzz'; possible: resnet18$"):
        lookup({"resnet18": 1}, "zzz", "model")
