"""Trains a ladder on the cluster: ray job submit -- python jobs/train.py CONFIG.

A job that is submitted again goes on from the last checkpoint of each run.
"""

import os
import sys

os.environ.setdefault("RAY_AUTH_MODE", "token")  # before ray is imported

from scaleinv_ray.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["train", "--address", "auto"]
    main()
