# docker build -f deploy/student-trainer.Dockerfile -t dynamic-kd-student-trainer .
#
# To pin the base by digest: `docker buildx imagetools inspect python:3.11.14-slim-bookworm` prints it;
# append @sha256:… to the tag below.
FROM python:3.11.14-slim-bookworm AS base
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore \
    PYTHONUNBUFFERED=1

# The list of libraries alone: the large layer below is rebuilt when this list changes, not when code does.
FROM base AS requirements
WORKDIR /src
COPY pyproject.toml ./
RUN python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; print(*p['dependencies'], *p['optional-dependencies']['trainer'], sep='\n')" > /requirements.txt

FROM base AS wheel
WORKDIR /src
COPY pyproject.toml README.md ./
COPY proto ./proto
COPY services ./services
RUN --mount=type=cache,target=/root/.cache/pip \
    pip wheel --no-deps --wheel-dir /dist .

FROM base
LABEL org.opencontainers.image.title="student-trainer" \
      org.opencontainers.image.description="Distils a small text classifier that asks its teacher only what it must"

# Owned by the user, so that a named volume mounted here for the first time is, too. Both images have both folders.
RUN groupadd --gid 10001 app \
 && useradd --uid 10001 --gid app --home-dir /tmp --no-create-home --shell /usr/sbin/nologin app \
 && install --directory --owner app --group app /cache /runs

# Empty: PyPI's torch, which on Linux x86-64 brings CUDA along.
ARG TORCH_INDEX=""
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=bind,from=requirements,source=/requirements.txt,target=/requirements.txt \
    pip install ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} --requirement /requirements.txt

# --no-index: fails if the list above lacks anything that the wheel asks for.
RUN --mount=type=bind,from=wheel,source=/dist,target=/dist \
    pip install --no-cache-dir --no-index "$(echo /dist/dynamic_kd-*.whl)[trainer]"

ENV HF_HOME=/cache/huggingface \
    HOME=/tmp \
    MPLCONFIGDIR=/tmp/matplotlib \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /runs
USER 10001:10001
# What Ctrl-C sends: the trainer says what is kept, and how to go on.
STOPSIGNAL SIGINT
ENTRYPOINT ["student-trainer"]
CMD ["--help"]
