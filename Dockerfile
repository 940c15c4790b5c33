# The environment of head and workers: CPU by default, --build-arg BASE=nvidia/cuda:... for GPUs.
ARG BASE=python:3.11-slim
FROM ${BASE}
ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1 RAY_AUTH_MODE=token OMP_NUM_THREADS=1
WORKDIR /opt/scaleinv_ray
COPY pyproject.toml README.md LICENSE ./
COPY scaleinv_ray ./scaleinv_ray
RUN python3 -m pip install .
COPY jobs ./jobs
