# docker build -f deploy/teacher-server.Dockerfile -t dynamic-kd-teacher-server .
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
RUN python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; print(*p['dependencies'], *p['optional-dependencies']['server'], sep='\n')" > /requirements.txt

FROM base AS wheel
WORKDIR /src
COPY pyproject.toml README.md ./
COPY proto ./proto
COPY services ./services
RUN --mount=type=cache,target=/root/.cache/pip \
    pip wheel --no-deps --wheel-dir /dist .

FROM base
LABEL org.opencontainers.image.title="teacher-server" \
      org.opencontainers.image.description="Serves a text classifier's logits and hidden states over gRPC and HTTP"

# Owned by the user, so that a named volume mounted here for the first time is, too. Both images have both folders.
RUN groupadd --gid 10001 app \
 && useradd --uid 10001 --gid app --home-dir /tmp --no-create-home --shell /usr/sbin/nologin app \
 && install --directory --owner app --group app /accounts /cache /runs

# Empty: PyPI's torch, which on Linux x86-64 brings CUDA along.
ARG TORCH_INDEX=""
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=bind,from=requirements,source=/requirements.txt,target=/requirements.txt \
    pip install ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} --requirement /requirements.txt

# --build-arg COMPILER=g++, for TEACHER_COMPILE: torch.compile's code is built where it runs.
ARG COMPILER=""
RUN if [ -n "$COMPILER" ]; then apt-get update \
 && apt-get install --yes --no-install-recommends "$COMPILER" \
 && rm -rf /var/lib/apt/lists/*; fi

# --no-index: fails if the list above lacks anything that the wheel asks for.
RUN --mount=type=bind,from=wheel,source=/dist,target=/dist \
    pip install --no-cache-dir --no-index "$(echo /dist/dynamic_kd-*.whl)[server]"

ENV HF_HOME=/cache/huggingface \
    HOME=/tmp \
    TORCHINDUCTOR_CACHE_DIR=/cache/torchinductor \
    TRITON_CACHE_DIR=/cache/triton \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    TEACHER_HOST=0.0.0.0
WORKDIR /runs
USER 10001:10001
EXPOSE 50051 8080
STOPSIGNAL SIGTERM
# http.client, since urllib would go through a proxy that the environment names. A large model may take long to arrive.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10m --retries=3 \
    CMD ["python", "-c", "import http.client, sys; c = http.client.HTTPConnection('127.0.0.1', 8080, timeout=3); c.request('GET', '/readyz'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["teacher-server"]
CMD ["serve"]
