# Starts MLflow's server behind its authentication app. Passwords come from files, and go to no command line.
set -euo pipefail
umask 077
: "${SECRETS:=/run/secrets}" "${HOST:=0.0.0.0}" "${PORT:=5000}" "${ALLOWED:=localhost:*,127.0.0.1:*,mlflow:*}"
: "${BACKEND:=postgresql://mlflow@postgres/mlflow}" "${ARTIFACTS:=s3://mlflow}"
private="$(mktemp -d)"

if [ -f "$SECRETS/postgres_password" ]; then # libpq reads it: the address holds no password
    printf '*:*:*:mlflow:%s\n' "$(cat "$SECRETS/postgres_password")" > "$private/pgpass"
    export PGPASSFILE="$private/pgpass"
fi
if [ -f "$SECRETS/s3_password" ]; then
    printf '[default]\naws_access_key_id = mlflow\naws_secret_access_key = %s\n' "$(cat "$SECRETS/s3_password")" \
        > "$private/credentials"
    export AWS_SHARED_CREDENTIALS_FILE="$private/credentials"
fi
printf '[mlflow]\ndefault_permission = NO_PERMISSIONS\ndatabase_uri = %s\nadmin_username = admin\nadmin_password = %s\n%s\n' \
    "${AUTH_BACKEND:-$BACKEND}" "$(cat "$SECRETS/mlflow_password")" \
    'authorization_function = mlflow.server.auth:authenticate_request_basic_auth' > "$private/auth.ini"
MLFLOW_FLASK_SERVER_SECRET_KEY="$(python -c 'import secrets; print(secrets.token_hex(32))')"
export MLFLOW_AUTH_CONFIG_PATH="$private/auth.ini" MLFLOW_FLASK_SERVER_SECRET_KEY

exec mlflow server --app-name basic-auth --host "$HOST" --port "$PORT" --allowed-hosts "$ALLOWED" --workers "${WORKERS:-2}" \
    --backend-store-uri "$BACKEND" --artifacts-destination "$ARTIFACTS"
