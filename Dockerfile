# One image for the four services; the command chooses. Build: docker build -t contentshop .
FROM python:3.11-slim-bookworm AS build
WORKDIR /src
COPY requirements/base.txt requirements/
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir --require-hashes -r requirements/base.txt
COPY pyproject.toml README.md ./
COPY libs libs
COPY services services
COPY cli cli
COPY gen gen
RUN /venv/bin/pip install --no-cache-dir --no-deps --no-build-isolation .

FROM python:3.11-slim-bookworm
RUN useradd --system --uid 10001 --create-home contentshop
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER contentshop
WORKDIR /home/contentshop
ENTRYPOINT ["python", "-m"]
CMD ["services.enqueue", "serve"]
