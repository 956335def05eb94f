# voxray in a container: `docker build -t voxray .`, or with `--target gpu` for NVIDIA GPUs.
# docs/deployment.md says how to run it; deploy/containers/prove.sh builds it and tries it out. It listens on all
# addresses, so it starts only with keys: `--env VOXRAY_API_KEY=…`, or as docs/keys.md says.
ARG PYTHON=docker.io/library/python:3.11-slim-bookworm

# A user without rights. Its home is the volume: settings, jobs, weights, Ray's token.
FROM ${PYTHON} AS runtime
RUN useradd --uid 10001 --create-home --home-dir /data --shell /usr/sbin/nologin voxray && \
    install --directory --owner voxray /tmp/ray # so that a volume there is voxray's
ENV HOME=/data PATH=/opt/voxray/bin:$PATH PYTHONUNBUFFERED=1
USER 10001
WORKDIR /data
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s CMD ["python3", "/opt/voxray/ready.py", "8000"]
ENTRYPOINT ["voxray"]
CMD ["run", "--host", "0.0.0.0"]

# Packages as locked, each file's hash checked. `--build-arg PIP_INDEX_URL=…` uses a mirror.
FROM ${PYTHON} AS packages
ARG PIP_INDEX_URL
ARG PIP_CERT
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python3 -m venv /opt/voxray
WORKDIR /source

FROM packages AS gpu-packages
COPY requirements/gpu.txt requirements/
# Without dependencies, because the file has them all; pip misses some that are named by an extra.
RUN /opt/voxray/bin/pip install --quiet --require-hashes --no-deps --requirement requirements/gpu.txt
COPY . .
RUN sh deploy/containers/install.sh

FROM packages AS cpu-packages
COPY requirements/run.txt requirements/
RUN /opt/voxray/bin/pip install --quiet --require-hashes --no-deps --requirement requirements/run.txt
COPY . .
RUN sh deploy/containers/install.sh

# Triton compiles small programs when vLLM starts, so it needs a C compiler.
FROM runtime AS gpu
USER 0
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends gcc libc6-dev \
  && rm -rf /var/lib/apt/lists/*
USER 10001
COPY --from=gpu-packages /opt/voxray /opt/voxray
CMD ["run", "--host", "0.0.0.0", "--profile", "gpu"]

FROM runtime AS cpu
COPY --from=cpu-packages /opt/voxray /opt/voxray
