"""Data sets by name: those that are always there, and those that a user's folder holds."""

from difflib import get_close_matches
from pathlib import Path

from ws_pipeline.errors import ConfigError, MissingInputError, Reason
from ws_pipeline.zoo.datasets.dataset import Dataset
from ws_pipeline.zoo.datasets.digits import IMAGE_SETS, load_digits
from ws_pipeline.zoo.datasets.hub_images import HUB_NAME, load_hub_images
from ws_pipeline.zoo.datasets.texts import TEXT_SETS, WINDOW_SETS, load_text, load_windows
from ws_pipeline.zoo.datasets.user_images import (
    FOLDER_NAME,
    LOW_SUFFIX,
    USER_SETS,
    load_user_images,
)

SHIPPED_NAMES = (*IMAGE_SETS, *WINDOW_SETS, *TEXT_SETS)
"""Data sets that need no folder."""


def load_dataset(name: str, folder: Path | None = None) -> Dataset:
    """Load a data set by name.

    Args:
        name: One of :data:`SHIPPED_NAMES` or ``USER_SETS``, the latter perhaps with ``-low`` for
            the lower half of the labels; ``folder-NAME-SIZE``; or ``hub.OWNER.NAME.SIZE`` for the
            image data set OWNER/NAME of the Hub.
        folder: Where the user's data sets lie; what comes from the Hub is kept below it.

    Raises:
        ConfigError: When there is none of that name; the message has the closest ones.
        MissingInputError: When it has to come from a folder and is not there.
    """
    if name in IMAGE_SETS:
        return load_digits(name)
    if name in WINDOW_SETS:
        return load_windows(name)
    if name in TEXT_SETS:
        return load_text(name)
    if HUB_NAME.fullmatch(name):
        return load_hub_images(name, folder)
    if name.removesuffix(LOW_SUFFIX) in USER_SETS or FOLDER_NAME.fullmatch(name):
        if folder is None:
            raise MissingInputError(
                f"The data set {name!r} does not ship with the package: name the folder it lies in."
            )
        return load_user_images(name, folder)
    close = get_close_matches(name, (*SHIPPED_NAMES, *USER_SETS), n=3) or SHIPPED_NAMES
    raise ConfigError(
        f"There is no data set {name!r}; did you mean {', '.join(close)}?",
        reason=Reason.UNKNOWN_NAME,
    )
