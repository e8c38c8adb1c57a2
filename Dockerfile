# One image; the role is the command: `dicomnode up`, or listen, sweep and work one by one.
# Mount node.toml at /etc/dicomnode/node.toml and a volume at its data_dir.
FROM python:3.11-slim AS build
WORKDIR /opt/perfusion-node
COPY constraints.txt pyproject.toml README.md LICENSE NOTICE ./
COPY dicomnode dicomnode
COPY inference inference
COPY training training
# The CPU build of torch unless another index is named.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN python -m venv .venv \
 && .venv/bin/pip install --no-cache-dir --constraint constraints.txt --index-url ${TORCH_INDEX} torch \
 && .venv/bin/pip install --no-cache-dir --constraint constraints.txt '.[postgresql,redis]'

FROM python:3.11-slim
COPY --from=build /opt/perfusion-node/.venv /opt/perfusion-node/.venv
RUN useradd --system --create-home --home-dir /var/lib/dicomnode dicomnode
USER dicomnode
WORKDIR /var/lib/dicomnode
ENV PATH=/opt/perfusion-node/.venv/bin:$PATH
EXPOSE 11112
ENTRYPOINT ["dicomnode"]
CMD ["up"]
