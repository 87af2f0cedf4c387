"""Which files of a folder are images and which label maps, where someone says so."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from shapeguide.errors import ConfigError

USUAL_CHANNEL = "image"
"""What the only channel is called where nobody names it."""
PERSON = "{person}"
"""Stands in a pattern where the name of a person stands, and otherwise like a star."""
_NAMED = re.compile(r"(?P<name>[\w.+-]+)=(?P<word>.+)")
"""A channel with its name."""


@dataclass(frozen=True)
class FileChoice:
    """What someone says of the files of a folder; nothing where its layout says all.

    Patterns have stars, such as `T1_*.nii.gz`, and are understood in every folder. What has none is
    understood by the layout: `T2w` by BIDS, `norm.mgz` by FreeSurfer, `T1.nii.gz` where each person
    has a folder.
    """

    images: tuple[str, ...] = ()
    """One for each channel of the images, as `T1=T1_*.nii.gz` where it is to have another name."""
    labels: str | None = None

    @property
    def channels(self) -> dict[str, str]:
        """Name of each channel to its pattern or word, in their order.

        Raises:
            ConfigError: If two channels are chosen alike or have one name.
        """
        named = [_NAMED.fullmatch(text) for text in self.images]
        words = [
            found["word"] if found else text for found, text in zip(named, self.images, strict=True)
        ]
        names = [
            found["name"] if found else _letters(word)
            for found, word in zip(named, words, strict=True)
        ]
        if len(set(words)) < len(words):
            raise ConfigError(f"{self.stated}: two channels are the same files; leave one out")
        if "" in names or len(set(names)) < len(names):
            if any(named):
                raise ConfigError(f"{self.stated}: give each channel a name, as in T1=*_T1.nii.gz")
            names = unnamed_channels(len(names))
        return dict(zip(names, words, strict=True))

    @property
    def by_patterns(self) -> bool:
        """Whether patterns say all, so that no layout is looked for."""
        return any(map(is_pattern, self.channels.values()))

    @property
    def label_maps_alone(self) -> bool:
        """Whether a pattern of label maps is all that is stated."""
        return not self.images and is_pattern(self.labels)

    @property
    def stated(self) -> str:
        """What is stated, as options of the command line."""
        given = [f"--images {text}" for text in self.images]
        return " and ".join([*given, *([f"--labels {self.labels}"] if self.labels else [])])

    def require_none(self, layout: str) -> None:
        """Refuse a choice where the layout says all.

        Args:
            layout: What was found, for the message.

        Raises:
            ConfigError: If anything is stated.
        """
        if self.stated:
            raise ConfigError(
                f"{layout} states its files, and {self.stated} would choose others; leave that "
                "out, or give patterns with stars for both, such as --images 'T1_*.nii.gz' "
                "--labels '*_seg.nii.gz'"
            )


NO_CHOICE = FileChoice()


def unnamed_channels(count: int) -> list[str]:
    """What channels are called that nobody names."""
    return [USUAL_CHANNEL] if count == 1 else [f"channel_{number}" for number in range(count)]


def is_pattern(text: str | None) -> bool:
    """Whether a text has a star, or the place of a person."""
    return text is not None and ("*" in text or PERSON in text)


def _letters(word: str) -> str:
    """What a pattern or word says of a channel: the last name in it without stars and suffix."""
    name = word.rpartition("/")[2].replace(PERSON, "*")
    return re.sub(r"\.(nii|mg[hz]|hdr|img).*", "", name, flags=re.I).replace("*", "").strip("_-. ")


def as_texts(given: str | Iterable[str]) -> tuple[str, ...]:
    """One text or several, as several."""
    return (given,) if isinstance(given, str) else tuple(given)
