"""Where the files of a foreign dataset may lie: inside its folder, unless its user trusts it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from shapeguide.errors import DataError, reason
from shapeguide.storage.names import shown_path


@dataclass(frozen=True)
class Reach:
    """The folder that what a dataset states may not lead out of."""

    folder: Path
    allow_outside: bool = False
    """Lets it lead anywhere."""

    def check(self, *paths: Path) -> None:
        """Refuse paths that lead out of the folder, by `..`, by a link or from the top.

        Raises:
            DataError: If one does, or is no path at all.
        """
        for path in paths:
            try:
                inside = path.resolve().is_relative_to(self.folder.resolve())
            except (OSError, RuntimeError, ValueError) as error:
                raise DataError(
                    f"{shown_path(path)}: not a usable path ({reason(error)})"
                ) from error
            if not inside and not self.allow_outside:
                raise DataError(
                    f"{shown_path(path)}: this path leaves the folder of the dataset, "
                    f"{self.folder}; move the file there, or read the dataset with "
                    "--allow-outside (allow_outside=True) if you trust it"
                )
