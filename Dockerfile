# The environment of head and workers, with and without GPUs: torch's wheels bring CUDA along.
FROM python:3.11.14-slim-bookworm
# ray up copies files with rsync and ssh, KubeRay's probes call wget. User 1000 is the first user of
# a machine too, so that the token which ray up mounts from there is its own.
RUN apt-get update \
    && apt-get install -y --no-install-recommends openssh-client procps rsync wget \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 --shell /bin/bash ray \
    && install --directory --owner=ray --group=ray --mode=0700 /home/ray/.ray
ENV HOME=/home/ray PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1 RAY_AUTH_MODE=token OMP_NUM_THREADS=1 \
    RAY_grpc_client_keepalive_time_ms=20000 RAY_grpc_client_keepalive_timeout_ms=30000 \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /opt/scaleinv_ray
COPY pyproject.toml requirements.lock README.md LICENSE ./
COPY scaleinv_ray ./scaleinv_ray
# aws: boto3, with which Ray starts nodes; the two variables hold the build backend to the lock as well
RUN PIP_CONSTRAINT=requirements.lock PIP_BUILD_CONSTRAINT=requirements.lock \
    python3 -m pip install --constraint requirements.lock '.[aws]'
COPY jobs ./jobs
USER 1000
