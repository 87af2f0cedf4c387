"""Whose folder is this? A folder knows what it was made for, what it may hold and who works in it.

Every folder that the package writes (a run, predictions, a study) is of a kind. The kind states the
file that notes the identity, and the names that such a folder may own. Four functions serve them
all:

    with locked(folder):                            # one process at a time, see lock.py
        found = claim(folder, RUN, identity)        # new, or the same; another one is refused
        ...
    clear(folder, RUN)                              # deletes what a run owns, and nothing else

`compare` answers the question of `claim` and changes nothing.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import shapeguide
from shapeguide.errors import CheckpointError, ConfigError, DataError, reason
from shapeguide.storage.lock import LOCK_FILE, locked
from shapeguide.storage.whole import read_json, write_json

SHOWN_DIFFERENCES = 6
MADE_BY = ("written_by", "made_by")
"""What a note of ours says about the version that wrote it; the second name is an older one."""


@dataclass(frozen=True)
class FolderKind:
    """What a folder of one kind is, and what it may own.

    Names are patterns of `fnmatch`. A sub-folder with a note is only ever touched when that note
    reads as ours; in one without, files are ours by their names.
    """

    what: str
    """What it holds, for messages: `run`, so that one reads "holds another run"."""
    note: str | None
    """File that notes the identity; None for a sub-folder that belongs to what is around it."""
    identity: tuple[str, ...] = ()
    """What the note must state, besides its version, to read as ours."""
    files: tuple[str, ...] = ()
    """Files directly in it, apart from the note. They are deleted in this order, so the one that
    says that everything is complete comes first."""
    folders: Mapping[str, FolderKind] = field(default_factory=dict)
    """Sub-folders."""
    growing: tuple[str, ...] = ()
    """Parts of the identity, objects all, to which later starts may add names, or which they may
    use in part; only names that both know are compared, and the note keeps all."""


@dataclass(frozen=True)
class Claim:
    """What a folder was when it was looked at."""

    state: Literal["new", "same", "other"]
    """Empty or not there; made for the same; made for another purpose."""
    differences: tuple[str, ...] = ()
    """In words: "settings.seed was 0, is 3"."""
    noted: Mapping[str, Any] = field(default_factory=dict)
    """The note as it was found; empty for a new folder."""

    @property
    def told(self) -> str:
        """The first differences as one text."""
        return "; ".join(self.differences[:SHOWN_DIFFERENCES])


def compare(
    folder: Path, kind: FolderKind, identity: Mapping[str, Any], *, ignoring: Sequence[str] = ()
) -> Claim:
    """Compare what a folder was made for with what it is wanted for; nothing is written.

    Args:
        folder: The folder; it need not exist.
        kind: What it should be.
        identity: What decides on its content, as plain values. What else the note may state is not
            compared.
        ignoring: Dotted names in the identity that may differ, such as `settings.machine`.

    Raises:
        ConfigError: If it is a file, or holds something that is none of ours.
        CheckpointError: If its note is damaged.
    """
    noted = read_note(folder, kind)
    if noted is None:
        refuse_foreign(folder, kind)
        return Claim("new")
    was, now = _comparable(noted, _plain(identity), kind, ignoring)
    differences = tuple(differences_in_words(was, now))
    return Claim("other" if differences else "same", differences, noted)


def claim(
    folder: Path,
    kind: FolderKind,
    identity: Mapping[str, Any],
    *,
    ignoring: Sequence[str] = (),
    beside: Mapping[str, Any] | None = None,
    replace: bool = False,
) -> Claim:
    """Make a folder, or take up the one that was made for the same; note whose it is.

    Two processes that claim one folder at once are kept apart by `locked`, around this call and
    the work that follows.

    Args:
        folder: The folder; missing parents are made.
        kind: What it is.
        identity: What decides on its content, as plain values.
        ignoring: Dotted names in the identity that may differ from those noted.
        beside: What the note states too, without being compared.
        replace: Take over a folder of this kind that was made for something else. Nothing in it is
            deleted, only the note is written anew.

    Returns:
        What it was; `other` only with `replace`.

    Raises:
        ConfigError: If it is a file, holds something that is none of ours or, unless `replace`, was
            made for something else.
        CheckpointError: If its note is damaged or it cannot be written.
    """
    if kind.note is None:
        raise ValueError(f"a folder of kind {kind.what!r} has no note to claim it by")
    found = compare(folder, kind, identity, ignoring=ignoring)
    if found.state == "other" and not replace:
        raise ConfigError(
            f"{folder} holds another {kind.what}: {found.told}. Choose another folder, or replace "
            "what is there (--overwrite)"
        )
    kept = {name: found.noted.get(name, {}) for name in kind.growing}
    content = {**_grown(_plain(identity), kept), **(beside or {})}
    if found.state == "same" and all(found.noted.get(name) == content[name] for name in kept):
        return found
    try:
        content["written_by"] = f"shapeguide {shapeguide.__version__}"
        write_json(folder / kind.note, content)
    except OSError as error:
        raise CheckpointError(
            f"cannot write to {folder}: {reason(error)}; choose another folder"
        ) from error
    return found


def read_note(folder: Path, kind: FolderKind) -> dict[str, Any] | None:
    """What a folder notes about itself; None without a note.

    Raises:
        ConfigError: If the file of that name is not ours.
        CheckpointError: If it is damaged.
    """
    path = folder / kind.note if kind.note else None
    if path is None or not path.is_file():
        return None
    try:
        content = read_json(path)
    except DataError as error:
        raise CheckpointError(
            f"{error}; restore it from a copy, or choose another folder"
        ) from error
    missing = _missing(content, kind)
    if missing:
        raise ConfigError(
            f"{path} is not the note of a {kind.what} ({missing}): {folder} is not touched; choose "
            "another folder"
        )
    found: dict[str, Any] = content
    return found


def clear(folder: Path, kind: FolderKind, *, keep: Iterable[Path] = ()) -> None:
    """Delete what a folder of this kind owns, and nothing else.

    Known names go; whatever else lies there stays, and then the note stays too, so that the folder
    can be claimed again. Links to folders are not followed.

    Args:
        folder: The folder; nothing happens when it does not exist.
        kind: What it is.
        keep: Files, such as scans to train on, that must not lie inside.

    Raises:
        ConfigError: If it is not of this kind, or one of the files to keep lies inside; nothing is
            deleted. Also if another process works in it.
        CheckpointError: If its note is damaged, or something cannot be deleted.
    """
    if read_note(folder, kind) is None:
        refuse_foreign(folder, kind)
    inside = [path for path in keep if path.resolve().is_relative_to(folder.resolve())]
    if inside:
        raise ConfigError(
            f"{folder} holds {inside[0]}, which is needed: nothing is deleted. Choose a folder of "
            f"its own for the {kind.what}"
        )
    if folder.is_dir():
        _delete(folder, kind)


def refuse_foreign(folder: Path, kind: FolderKind) -> None:
    """Refuse a folder without a note that holds anything but own sub-folders.

    Hidden files do not count.

    Raises:
        ConfigError: If it is refused, or a file.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; name a folder for the {kind.what}")
    foreign = sorted(
        path.name
        for path in (folder.iterdir() if folder.is_dir() else ())
        if not path.name.startswith(".") and not _is_noted_folder(path, kind)
    )
    if foreign:
        named = ", ".join(foreign[:3]) + (" and more" if len(foreign) > 3 else "")
        raise ConfigError(
            f"{folder} is no folder of a {kind.what} ({kind.note} is missing) and holds {named}: "
            "nothing there is touched. Choose an empty or a new folder"
        )


def differences_in_words(was: Any, now: Any, name: str = "") -> list[str]:
    """Where two nested contents differ, in words."""
    if isinstance(was, dict) and isinstance(now, dict):
        names = [*was, *(key for key in now if key not in was)]
        return [
            difference
            for key in names
            for difference in differences_in_words(
                was.get(key), now.get(key), f"{name}.{key}".strip(".")
            )
        ]
    if was == now:
        return []
    return [f"{name} was {_short(was)}, is {_short(now)}"]


def _missing(content: Any, kind: FolderKind) -> str:
    """What a note lacks to be one of ours; empty when it is."""
    if not isinstance(content, dict):
        return "it holds no object"
    if not any(str(content.get(name, "")).startswith("shapeguide ") for name in MADE_BY):
        return "shapeguide did not write it"
    lacking = [name for name in kind.identity if name not in content]
    return f"it states no {', '.join(lacking)}" if lacking else ""


def _comparable(
    noted: Mapping[str, Any], identity: Mapping[str, Any], kind: FolderKind, ignoring: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What was and is, without what may differ."""
    was = {name: noted.get(name) for name in identity}
    now = dict(identity)
    for name in kind.growing:
        old, new = was.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            was[name] = {key: old[key] for key in old if key in new}
            now[name] = {key: new[key] for key in new if key in old}
    for dotted in ignoring:
        was, now = (_without(content, dotted.split(".")) for content in (was, now))
    return was, now


def _without(content: dict[str, Any], path: list[str]) -> dict[str, Any]:
    first, *rest = path
    if not rest:
        return {name: value for name, value in content.items() if name != first}
    inner = content.get(first)
    return {**content, first: _without(inner, rest)} if isinstance(inner, dict) else content


def _grown(identity: dict[str, Any], kept: Mapping[str, Any]) -> dict[str, Any]:
    """The identity, with the names that earlier starts have noted."""
    return {**identity, **{name: {**old, **identity[name]} for name, old in kept.items()}}


def _kind_of(path: Path, around: FolderKind) -> FolderKind | None:
    """The kind of a sub-folder by its name; None for a file, a link, or an unknown name."""
    if path.is_symlink() or not path.is_dir():
        return None
    kinds = around.folders.items()
    return next((kind for name, kind in kinds if fnmatch.fnmatchcase(path.name, name)), None)


def _is_noted_folder(path: Path, around: FolderKind) -> bool:
    """Whether a sub-folder is known, and its own note reads as ours."""
    kind = _kind_of(path, around)
    if kind is None:
        return False
    try:
        return read_note(path, kind) is not None
    except (ConfigError, CheckpointError):
        return False


def _delete(folder: Path, kind: FolderKind) -> None:
    """Delete what is known by name while nobody works in the folder."""
    with locked(folder) if kind.note else nullcontext():
        try:
            _delete_known(folder, kind)
        except PermissionError as error:
            raise CheckpointError(f"{error.filename} cannot be deleted: {reason(error)}") from error


def _delete_known(folder: Path, kind: FolderKind) -> None:
    """Delete inner folders first, and the note last, if nothing else is left."""
    for path in sorted(folder.iterdir()):
        inner = _kind_of(path, kind)
        if inner is not None and (inner.note is None or _is_noted_folder(path, kind)):
            _delete(path, inner)
            if not any(path.iterdir()):
                path.rmdir()
    for pattern in kind.files:
        for path in sorted(folder.glob(pattern)):
            if path.is_file() or path.is_symlink():
                path.unlink()
    if kind.note and {path.name for path in folder.iterdir()} <= {kind.note, LOCK_FILE}:
        (folder / kind.note).unlink(missing_ok=True)


def _plain(content: Mapping[str, Any]) -> dict[str, Any]:
    """Content as it comes back from a file: tuples are lists."""
    plain: dict[str, Any] = json.loads(json.dumps(content))
    return plain


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
