# One image for every process: `dispatcher migrate | api | worker | beat | sandbox`.
# Health is the business of who runs it: see docker-compose.yml.

FROM python:3.12-slim-bookworm AS build
RUN pip install --no-cache-dir --disable-pip-version-check uv==0.13.9
ENV UV_PROJECT_ENVIRONMENT=/opt/dispatcher \
    UV_PYTHON=/usr/local/bin/python3.12 \
    UV_PYTHON_DOWNLOADS=never \
    UV_LINK_MODE=copy \
    UV_COMPILE_BYTECODE=1
WORKDIR /src
# What is locked changes seldom: its layer is kept while only our code changes.
COPY pyproject.toml uv.lock README.md ./
RUN uv sync --locked --no-dev --no-install-project --no-cache
COPY channels ./channels
COPY dispatcher ./dispatcher
COPY templates ./templates
RUN uv sync --locked --no-dev --no-editable --no-cache

FROM python:3.12-slim-bookworm
RUN useradd --system --uid 10001 --user-group --no-create-home --home-dir /data \
        --shell /usr/sbin/nologin dispatcher \
    && install -d -o dispatcher -g dispatcher -m 0700 /data
COPY --from=build /opt/dispatcher /opt/dispatcher
ENV PATH=/opt/dispatcher/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    DISPATCHER_DATA_DIR=/data
USER 10001
WORKDIR /data
EXPOSE 8000
ENTRYPOINT ["dispatcher"]
CMD ["--help"]
