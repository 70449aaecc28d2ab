# For an NVIDIA GPU (CUDA comes with torch; the host needs a driver and the NVIDIA container toolkit):
#   docker build --tag reward-service:cuda .
# For a CPU, from an index that has CPU builds of torch (PyTorch's site names it; without one, torch brings CUDA along):
#   docker build --build-arg VARIANT=cpu --build-arg TORCH_INDEX=URL --tag reward-service:cpu .
ARG PYTHON=3.11
ARG VARIANT=cuda

FROM python:${PYTHON}-slim-bookworm AS build
ARG VARIANT
ARG TORCH_INDEX=""
ARG EXTRAS="server,traces"
ENV PIP_CONSTRAINT=/build/constraints.txt \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PATH=/opt/venv/bin:$PATH
WORKDIR /build
COPY constraints.txt ./
# The versions are those of constraints.txt. torch is by far the largest and seldom changes: a layer of its own.
# hadolint ignore=DL3013
RUN python -m venv /opt/venv \
    && pip install torch ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} \
    && python -c "import sys, torch; sys.exit(None if '${VARIANT}' == 'cpu' or torch.version.cuda else 'this torch has no CUDA: leave TORCH_INDEX empty, or name an index with CUDA builds')"
# The other packages come before the source, so that a change of the source installs nothing anew.
COPY pyproject.toml README.md LICENSE ./
COPY service/reward_service/__init__.py service/reward_service/__init__.py
# hadolint ignore=DL3013
RUN pip install ".[${EXTRAS}]"
COPY service service
RUN pip install --no-deps --force-reinstall .

# g++ stays: on first use the engine compiles its kernels for the processor it finds, and torch compiles layers
# (Triton, on a GPU, needs a C compiler too). Without it both run, slower.
FROM python:${PYTHON}-slim-bookworm AS base
ARG PYTHON
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 reward \
    && useradd --uid 10001 --gid reward --no-create-home --home-dir /var/lib/reward-service --shell /usr/sbin/nologin reward \
    && install -d -o reward -g reward /models /var/lib/reward-service /var/cache/reward-service \
    && install -d /etc/reward-service \
    && ln -s "/opt/venv/lib/python${PYTHON}/site-packages/reward_service/demo/models" /opt/demo-models
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    XDG_CACHE_HOME=/var/cache/reward-service \
    HF_HOME=/var/cache/reward-service/huggingface \
    TORCHINDUCTOR_CACHE_DIR=/var/cache/reward-service/inductor \
    TRITON_CACHE_DIR=/var/cache/reward-service/triton
USER 10001:10001
WORKDIR /var/lib/reward-service
EXPOSE 8000
STOPSIGNAL SIGTERM
# It listens once the models are loaded, so that healthy means able to score.
HEALTHCHECK --interval=10s --timeout=5s --start-period=15m --start-interval=2s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
ENTRYPOINT ["reward-service"]
CMD ["serve", "--config", "/etc/reward-service/config.toml"]

FROM base AS cpu

FROM base AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

# hadolint ignore=DL3006
FROM ${VARIANT}
