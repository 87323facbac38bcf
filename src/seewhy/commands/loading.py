"""How a command loads its data."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from tyro.conf import arg

if TYPE_CHECKING:
    from seewhy.data import Dataset

Name = Annotated[str, arg(metavar="NAME|PATH")]


@dataclass(frozen=True)
class Loading:
    """How to load the data."""

    image_size: int | None = None
    """Side of the square that images are resized and cropped to; by default what most of them have."""
    validation: float = 0.0
    """Share of the training images to hold out, stratified."""
    limit: int | None = None
    """Train on so many images only, of every class alike."""
    split_seed: int = 0
    """Seed of what is drawn: of validation, of a limit, and of test where the data comes without."""
    label: str | None = None
    """Column of the labels, where a data set has several."""
    skip_bad_images: bool = False
    """Leave out images that cannot be read, and count them."""


def loaded(name: str, loading: Loading) -> "Dataset":
    """The data set, loaded as the options say."""
    from seewhy.data import load

    values = {key: value for key, value in vars(loading).items() if key != "split_seed"}
    return load(name, seed=loading.split_seed, **values)
