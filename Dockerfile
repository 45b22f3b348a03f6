# The image of Collector: one program, two tmpfs mounts, no shell, nothing written to its own file system.
#
#   docker build -t collector:dev .
#   docker run --rm --read-only --cap-drop ALL --security-opt no-new-privileges \
#     --tmpfs /run/collector:rw,noexec,nosuid,nodev,size=512m,mode=0700,uid=10001,gid=10001 \
#     --tmpfs /tmp:rw,noexec,nosuid,nodev,size=32m,mode=1777 \
#     -v "$PWD/collector.toml:/etc/collector.toml:ro" -e COLLECTOR_CONFIG=/etc/collector.toml \
#     -e COLLECTOR_SINK=stdout: -p 8080:8080 collector:dev
#
# The mounts are those of tmpfs-mounts.json. There is no VOLUME for them: a volume that nobody mounts is a
# writable place on the host's disk, under a root that is said to be read-only. Nor is there a directory: some
# engines give a tmpfs the mode of the directory below it, and not the one that was asked for.
# No step knows an architecture; all wheels come for amd64 and arm64.

ARG BASE=docker.io/library/python:3.11-slim-bookworm

FROM ${BASE} AS build
# Which of setup.cfg's extras the image carries, for instance: --build-arg EXTRAS=aws,splunk
ARG EXTRAS=
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# gunicorn_h1c comes as source; the compiler stays in this stage.
RUN apt-get update -qq && apt-get install -qq -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv --without-pip /opt/collector
# First only what names the dependencies, so that a change of code does not install them anew.
COPY setup.cfg pyproject.toml ./
RUN python3 -c "import configparser, os; c = configparser.ConfigParser(); c.read('setup.cfg'); \
      wanted = [c['options']['install_requires'], *(c['options.extras_require'][e] for e in os.environ.get('EXTRAS', '').split(',') if e)]; \
      print(*(line for text in wanted for line in text.split() if line), sep='\n')" > requirements.txt \
 && python3 -m pip --python /opt/collector/bin/python install --no-compile -r requirements.txt
COPY README.md LICENSE gunicorn.conf.py wsgi.py tmpfs-mounts.json ./
COPY collector collector
RUN python3 -m pip --python /opt/collector/bin/python install --no-compile --no-deps .
# Compiled once, here, and never compared with its source again: a layer's time stamps are not to be trusted.
RUN /opt/collector/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/collector

FROM ${BASE}
LABEL org.opencontainers.image.title="collector" \
      org.opencontainers.image.description="The front door for device events" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
# The official image ships no compiled standard library; without this, a read-only root compiles it at each start.
RUN python3 -c "import compileall, py_compile, re, sysconfig; \
      compileall.compile_dir(sysconfig.get_path('stdlib'), quiet=2, rx=re.compile(r'/(test|tests|lib2to3|idlelib|site-packages|dist-packages)/'), \
      invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)"
COPY --from=build /opt/collector /opt/collector
ENV PATH=/opt/collector/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    TMPDIR=/tmp \
    COLLECTOR_BIND=0.0.0.0:8080 \
    COLLECTOR_ADMIN_BIND=127.0.0.1:8081 \
    COLLECTOR_SPOOL_DIR=/run/collector/spool \
    COLLECTOR_TMPFS_MOUNTS=/opt/collector/share/collector/tmpfs-mounts.json
WORKDIR /
USER 10001:10001
EXPOSE 8080 8081
STOPSIGNAL SIGTERM
# Asks the admin listener, which has an accept queue of its own: a full house is not a dead one.
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s --retries=3 CMD ["/opt/collector/bin/python", "-ISc", \
    "import os, socket; host, _, port = os.environ['COLLECTOR_ADMIN_BIND'].rpartition(':'); link = socket.create_connection((host.strip('[]'), int(port)), 4); link.sendall(b'GET /healthz HTTP/1.0\\r\\n\\r\\n'); raise SystemExit(b' 200 ' not in link.recv(64))"]
ENTRYPOINT ["/opt/collector/bin/collector"]
CMD ["serve"]
