from pathlib import Path

import pytest

from scaleinv_ray.ladder.spec import OptimizerSpec, TrainSpec


@pytest.fixture
def corpus_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    for i in range(4):
        (folder / f"note{i}.txt").write_text(f"The word of note {i} is {'abcd'[i] * 3}. " * 30)
        (folder / f"module{i}.py").write_text(f"def f{i}(x):\n    return x + {i}\n" * 20)
    return folder


@pytest.fixture
def tiny(corpus_folder: Path) -> TrainSpec:
    return TrainSpec(
        name="tiny",
        widths=(16,),
        depth=1,
        head_dim=8,
        corpus=(str(corpus_folder),),
        batch=2,
        length=16,
        steps=5,
        checkpoints=(0, 2, 4, 5),
        optimizer=OptimizerSpec(lr=1e-2, weight_decay=0.1, warmup=1),
    )
