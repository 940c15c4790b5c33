"""Texts of an alphabet, and models of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.plan.document_models import alphabet, documents, json_file, saved


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    few = documents(6, seed=3, length=12)
    return json_file(
        tmp_path_factory.mktemp("texts") / "a.jsonl", documents(60, seed=2, tail=9) + few
    )


@pytest.fixture
def probe(texts: Path) -> dict[str, Any]:
    return {"name": "mine", "file": str(texts), "layout": "documents"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A template or none, and training steps -> folder of the model."""
    made: dict[tuple[Any, ...], Path] = {}

    def make(width: int = 16, steps: int = 0, **of: bool) -> Path:
        at = (width, steps, *of.items())
        if at not in made:
            folder = tmp_path_factory.mktemp("models") / f"w{width}"
            made[at] = saved(folder, alphabet(**of), width=width, steps=steps)
        return made[at]

    return make
