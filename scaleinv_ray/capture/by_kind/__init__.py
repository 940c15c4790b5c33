"""What makes the records of each kind out of a live model; importing it finds all of them.

A file registers its makers by `makers.collects` or `makers.passes`; what is known of a kind without
a model stands in `scaleinv_ray.kinds`.
"""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
