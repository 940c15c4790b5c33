from pathlib import Path

import pytest


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """A folder of 20 texts and 20 modules, each of which says its own name."""
    folder = tmp_path / "texts"
    (folder / "sub").mkdir(parents=True)
    for i in range(20):
        (folder / f"note{i}.txt").write_text(f"note {i} says word{i}. " * 20)
        (folder / "sub" / f"module{i}.py").write_text(f"value_{i} = {i}\n" * 20)
    return folder
