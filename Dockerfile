# The suite in an image:
#   docker build -t ddp-zero-bench .
#   docker run --rm --gpus all --ipc=host -v "$PWD:/work" ddp-zero-bench stage=3
# --ipc=host: NCCL's shared memory outgrows Docker's 64 MB. BASE is Debian 12, Ubuntu 24.04 or later;
# torch's wheels bring CUDA, the host brings the driver.
ARG BASE=debian:bookworm-slim
FROM ${BASE}

# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates git make python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && git config --system --add safe.directory /opt/bench

# Bytecode in the image: otherwise every container compiles torch anew.
ENV UV_COMPILE_BYTECODE=1
WORKDIR /opt/bench
# Dependencies first: they change less often than the source.
COPY pyproject.toml uv.lock Makefile ./
RUN --mount=type=cache,target=/root/.cache make dependencies

COPY . .
RUN --mount=type=cache,target=/root/.cache make setup

# Results, the MLflow store and data sets live in the mounted folder.
WORKDIR /work
ENTRYPOINT ["/opt/bench/.venv/bin/python", "-m", "bench"]
