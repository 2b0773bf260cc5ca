# The images of Shardwise: targets `operator` (no torch) and `trainer` (no kopf).
#
#   docker build --target operator -t shardwise-operator .
#   docker build --target trainer  -t shardwise-trainer  .
#
# A CUDA trainer:  --build-arg TORCH_INDEX_URL=https://download.pytorch.org/whl/cu130
# Empty:           --build-arg TORCH_INDEX_URL=        takes torch from pip's default index.
ARG PYTHON=python:3.11-slim

# ---- what both builds share: a virtual environment, and the distribution with no source in it.
# Sources come in a layer of their own, so that a change of code reinstalls no torch, and ships none.
FROM ${PYTHON} AS build
ENV PATH=/opt/venv/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
RUN python -m venv /opt/venv \
    && echo /opt/shardwise > "$(python -c 'import site; print(site.getsitepackages()[0])')/shardwise.pth" \
    && mkdir -p operator/shardwise_operator trainer/shardwise \
    && touch README.md LICENSE operator/shardwise_operator/__init__.py trainer/shardwise/__init__.py
COPY requirements/lock.txt requirements/lock.txt
COPY pyproject.toml pyproject.toml

FROM build AS build-operator
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --constraint requirements/lock.txt ".[operator]" \
    && pip uninstall --yes shardwise

FROM build AS build-trainer
ARG TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --constraint requirements/lock.txt \
    ${TORCH_INDEX_URL:+--extra-index-url "$TORCH_INDEX_URL"} ".[trainer,compression]" \
    && pip uninstall --yes shardwise

FROM build AS build-source
COPY operator operator
COPY trainer trainer
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --no-deps --target /opt/shardwise .

# ---- what both images share: an unprivileged user, and the environment at the same path.
FROM ${PYTHON} AS runtime
RUN groupadd --gid 65532 shardwise \
    && useradd --uid 65532 --gid 65532 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin shardwise
ENV PATH=/opt/shardwise/bin:/opt/venv/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /tmp

FROM runtime AS operator
COPY --from=build-operator /opt/venv /opt/venv
COPY --from=build-source /opt/shardwise /opt/shardwise
USER 65532:65532
EXPOSE 7070 8080
ENTRYPOINT ["python", "-m", "shardwise_operator"]

FROM runtime AS trainer
# Debian packages with data for the examples, such as dataset-fashion-mnist.
ARG DATASETS=""
# hadolint ignore=DL3008,SC2086
RUN if [ -n "$DATASETS" ]; then \
        apt-get update \
        && apt-get install --yes --no-install-recommends $DATASETS \
        && rm -rf /var/lib/apt/lists/*; \
    fi
ENV MPLBACKEND=Agg MPLCONFIGDIR=/tmp/matplotlib
COPY --from=build-trainer /opt/venv /opt/venv
COPY --from=build-source /opt/shardwise /opt/shardwise
USER 65532:65532
ENTRYPOINT ["python", "-m", "shardwise.worker"]
