"""Analyses a series on the cluster: ray job submit -- python jobs/analyze.py CONFIG [--out URI].

A job that is submitted again computes what is missing, and nothing else.
"""

import os
import sys

os.environ.setdefault("RAY_AUTH_MODE", "token")  # before ray is imported

from scaleinv_ray.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["run", "--address", "auto"]
    main()
