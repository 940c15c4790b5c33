"""What tests of the page share: it as a file, and what is packed in it."""

import base64
import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from scaleinv_ray.conclude.conclusions import CONCLUSIONS
from scaleinv_ray.report import render

FIGURES = {conclusion.name: conclusion.figure for conclusion in CONCLUSIONS}


def write_report(
    tables: Mapping[str, pa.Table],
    *,
    title: str,
    facts: Mapping[str, str],
    out: Path,
    figures: Mapping[str, str | None] = FIGURES,
) -> Path:
    out.write_bytes(render(tables, title=title, facts=facts, figures=figures))
    return out


def unpacked(text: str) -> Any:
    """What `pack.packed` was given."""
    return json.loads(gzip.decompress(base64.b64decode(text)))
