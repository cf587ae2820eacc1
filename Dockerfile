FROM python:3.11-slim

ENV OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
COPY pyproject.toml settings.ini README.md LICENSE ./
COPY ramer ramer
COPY nbs/experiments nbs/experiments
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu ".[serve]" \
 && useradd --create-home served
USER served
VOLUME /model
EXPOSE 8000
HEALTHCHECK CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/healthz')"]
CMD ["ramer", "serve", "/model", "--host", "0.0.0.0", "--port", "8000"]
