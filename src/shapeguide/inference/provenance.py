"""A folder never mixes the label maps of two models: what made them is noted beside them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from torch import nn

import shapeguide
from shapeguide.data.provenance import ORIGIN_FILE, read_origin
from shapeguide.errors import ConfigError, DataError
from shapeguide.inference.restoring import Restorers
from shapeguide.models.segmenter import Segmenter
from shapeguide.storage.identity import differences_in_words
from shapeguide.storage.whole import write_json


def origin_of(
    segmenter: Segmenter, restorers: Restorers, *, largest_component: bool
) -> dict[str, Any]:
    """What decides on label maps, as plain values."""
    return {
        "structures": {item.name: list(item.label_ids) for item in segmenter.structures},
        "segmenter": _fingerprint(segmenter.network),
        "restorer": restorers.restorer and _fingerprint(restorers.restorer.network),
        "usual_disagreement": restorers.restorer and restorers.restorer.usual_disagreement,
        "autoencoder": restorers.autoencoder and _fingerprint(restorers.autoencoder.network),
        "largest_component": largest_component,
    }


def claim_folder(folder: Path, origin: dict[str, Any], *, overwrite: bool) -> None:
    """Note in a folder how its label maps are made.

    Raises:
        ConfigError: If those in it were made otherwise and are not to be replaced, or it is a file.
        DataError: If it cannot be written, or its note is damaged.
    """
    path = folder / ORIGIN_FILE
    if path.is_file() and not overwrite:
        was = read_origin(path)
        differences = differences_in_words({name: was.get(name) for name in origin}, origin)
        if differences:
            raise ConfigError(
                f"{folder} holds label maps of another model or other options: "
                f"{'; '.join(differences)}. Choose another folder, or add --overwrite "
                "(overwrite=True) to make them again"
            )
        return
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; name a folder for the label maps")
    try:
        write_json(path, {**origin, "made_by": f"shapeguide {shapeguide.__version__}"})
    except OSError as error:
        raise DataError(f"cannot write to {folder}: {error}; choose another folder") from error


def _fingerprint(network: nn.Module) -> str:
    """Of all weights, short enough to read."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()[:16]
