"""What a tokenizer's settings put before a text, where tokenizer.json itself does not say it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scaleinv_ray.inputs.json_files import read_json, short, whole

SETTINGS = "tokenizer_config.json"


def asked_beginning(folder: Path, config: Mapping[str, Any]) -> str | int | None:
    """The token that `add_bos_token` of tokenizer_config.json asks for.

    Args:
        folder: with the tokenizer's files.
        config: config.json of the model; its `bos_token_id` where the settings name no token.

    Returns:
        The token, or its id; None where it is not asked for.

    Raises:
        ValueError: where the settings are no JSON object, or a value is of another kind.
    """
    file = folder / SETTINGS
    if not file.is_file():
        return None
    settings = read_json(file)
    asked = settings.get("add_bos_token")
    if not (asked is None or isinstance(asked, bool)):
        raise ValueError(f"{file}: add_bos_token: got {short(asked)}, allowed: true, false")
    if not asked:
        return None
    told = settings.get("bos_token")
    token = told.get("content") if isinstance(told, Mapping) else told
    if isinstance(token, str):
        return token
    if told is not None:
        raise ValueError(f"{file}: bos_token: got {short(told)}, allowed: a token")
    return whole(config, "bos_token_id", folder / "config.json")
