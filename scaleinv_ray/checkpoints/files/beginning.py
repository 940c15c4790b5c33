"""What a tokenizer's settings put before a text, where tokenizer.json itself does not say it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scaleinv_ray.inputs.json_files import read_json

SETTINGS = "tokenizer_config.json"


def asked_beginning(folder: Path, config: Mapping[str, Any]) -> str | int | None:
    """The token that `add_bos_token` of tokenizer_config.json asks for.

    Args:
        folder: with the tokenizer's files.
        config: config.json of the model; its `bos_token_id` where the settings name no token.

    Returns:
        The token, or its id; None where it is not asked for.

    Raises:
        ValueError: where the settings are no JSON object.
    """
    file = folder / SETTINGS
    if not file.is_file():
        return None
    settings = read_json(file)
    if settings.get("add_bos_token") is not True:
        return None
    token = settings.get("bos_token")
    if isinstance(token, Mapping):
        token = token.get("content")
    if isinstance(token, str):
        return token
    number = config.get("bos_token_id")
    return number if isinstance(number, int) else None
