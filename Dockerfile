# One image for every service; the command says which (docker-compose.yml).
# It takes the steps of the Makefile: pinned dependencies, then `make stubs`.
ARG PYTHON_VERSION=3.13

FROM python:${PYTHON_VERSION}-slim AS build
RUN apt-get update && apt-get install --yes --no-install-recommends make
WORKDIR /app
RUN python -m venv .venv
ENV PATH=/app/.venv/bin:$PATH
COPY requirements.lock ./
RUN pip install --no-cache-dir --quiet --disable-pip-version-check --require-hashes -r requirements.lock
COPY Makefile ./
COPY protos protos
RUN make stubs PY=python
COPY mesh mesh
COPY coordinator coordinator
COPY order_svc order_svc
COPY inventory_svc inventory_svc
COPY payment_svc payment_svc
COPY fulfillment_svc fulfillment_svc

FROM python:${PYTHON_VERSION}-slim
ENV PATH=/app/.venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# /data is the one place it writes to; a named volume takes over the owner.
RUN useradd --no-create-home --uid 10001 mesh && mkdir /data && chown mesh /data
WORKDIR /app
COPY --from=build /app /app
USER mesh
CMD ["python", "-m", "coordinator"]
