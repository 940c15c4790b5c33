# The environment of head and workers, with and without GPUs: torch's wheels bring CUDA along.
FROM python:3.11-slim
# ray up copies files with rsync and ssh, KubeRay's probes call wget, AWS is reached through boto3
RUN apt-get update \
    && apt-get install -y --no-install-recommends openssh-client procps rsync wget \
    && rm -rf /var/lib/apt/lists/*
ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1 RAY_AUTH_MODE=token OMP_NUM_THREADS=1 \
    RAY_grpc_client_keepalive_time_ms=20000 RAY_grpc_client_keepalive_timeout_ms=30000 \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /opt/scaleinv_ray
COPY pyproject.toml README.md LICENSE ./
COPY scaleinv_ray ./scaleinv_ray
RUN python3 -m pip install . boto3
COPY jobs ./jobs
