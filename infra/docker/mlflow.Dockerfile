# MLflow's server: its authentication app, PostgreSQL, S3. See compose.yaml.
FROM python:3.11-slim-bookworm
RUN pip install --no-cache-dir "mlflow[auth]>=3.17,<4" "psycopg2-binary>=2.9" "boto3>=1.40"
COPY infra/docker/mlflow-server.sh /usr/local/bin/mlflow-server
RUN useradd --create-home --uid 1000 mlflow
USER 1000
WORKDIR /home/mlflow
ENTRYPOINT ["bash", "/usr/local/bin/mlflow-server"]
