# Build: docker build -t auth-gateway .
# First: docker run --rm -v gateway:/data auth-gateway init
# Run:   docker run --read-only -v gateway:/data -p 8080:8080 -e GATEWAY_UPSTREAM=http://app:9000 auth-gateway
#
# /data holds gateway.yaml, .env and the SQLite file, and is all that is ever written to.

FROM python:3.11-slim AS build
RUN python -m venv /opt/gateway
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY gateway ./gateway
RUN /opt/gateway/bin/pip install --no-cache-dir --compile ".[postgres,redis,keys]" \
    && /opt/gateway/bin/pip uninstall --yes pip setuptools

FROM python:3.11-slim
COPY --from=build /opt/gateway /opt/gateway
RUN useradd --system --uid 10001 --home-dir /data --no-create-home gateway \
    && install --directory --owner gateway --group gateway --mode 0700 /data
ENV PATH="/opt/gateway/bin:$PATH" PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# 127.0.0.1 would be the container's own; the ops listener stays there, for the health check.
ENV GATEWAY_LISTEN=0.0.0.0:8080
WORKDIR /data
VOLUME /data
USER 10001:10001
EXPOSE 8080
# SIGTERM drains: requests in flight finish, see server.timeouts.drain.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 CMD ["gateway", "healthcheck"]
ENTRYPOINT ["gateway"]
CMD ["run"]
