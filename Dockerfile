# One image; the role is the command: `up`, or prepare, listen, sweep, work stroke, work routine, work deliver, web.
#   docker build --tag perfusion-node .                          for CPUs
#   docker build --build-arg VARIANT=cu130 --tag perfusion-node .   with the CUDA build of torch (the engine computes on
#                                                                CPUs so far, so that this only makes the image larger)
# It runs as user 10001 on a read-only root: --read-only --tmpfs /tmp, node.toml at /etc/dicomnode/node.toml and a volume
# at /var/lib/dicomnode, where its data_dir belongs. docs/compose.yaml shows it with PostgreSQL, RabbitMQ and Orthanc.
FROM python:3.11.13-slim-bookworm AS build
WORKDIR /opt/perfusion-node
COPY constraints.txt pyproject.toml README.md LICENSE NOTICE ./
COPY dicomnode dicomnode
COPY inference inference
COPY training training
ARG VARIANT=cpu
RUN python -m venv .venv
# A version with a local part (2.13.0+cpu) goes before that of PyPI, which would bring gigabytes of CUDA.
RUN .venv/bin/pip install --no-cache-dir --constraint constraints.txt --extra-index-url https://download.pytorch.org/whl/${VARIANT} torch
RUN .venv/bin/pip install --no-cache-dir --constraint constraints.txt '.[postgresql,redis,oidc]'

FROM python:3.11.13-slim-bookworm
COPY --from=build /opt/perfusion-node/.venv /opt/perfusion-node/.venv
RUN useradd --system --uid 10001 --user-group --home-dir /var/lib/dicomnode --no-create-home --shell /usr/sbin/nologin dicomnode
RUN install -d -m 0700 -o dicomnode -g dicomnode /var/lib/dicomnode
RUN install -d -m 0755 /etc/dicomnode
ENV PATH=/opt/perfusion-node/.venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 DICOMNODE_ALIVE=/tmp/dicomnode-alive
USER 10001
WORKDIR /var/lib/dicomnode
VOLUME /var/lib/dicomnode
EXPOSE 11112 8080
STOPSIGNAL SIGTERM
# Whatever the role, it touches this file for as long as it gets on, as it would tell systemd.
HEALTHCHECK --interval=30s --timeout=10s --start-period=5m CMD find "$DICOMNODE_ALIVE" -newermt '-60 seconds' | grep -q .
ENTRYPOINT ["dicomnode"]
CMD ["up"]
