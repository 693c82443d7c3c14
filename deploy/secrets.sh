#!/usr/bin/env bash
# Write the secrets of a team's set-up into a folder that only you can read. It prints none, and keeps those that exist.
#   bash deploy/secrets.sh FOLDER [HOST [PORT]]        HOST and PORT are PostgreSQL's; the default is 127.0.0.1 5432
set -euo pipefail
folder=$1 host=${2:-127.0.0.1} port=${3:-5432}
umask 077
mkdir -p "$folder"
chmod 700 "$folder"

random() { od -An -N 24 -tx1 /dev/urandom | tr -d ' \n'; }
keep() { # the standard input, unless the file exists
  local content
  content=$(cat)
  [ -s "$folder/$1" ] || printf '%s\n' "$content" >"$folder/$1"
}

for name in postgres prefect mlflow s3 ray; do random | keep "$name"; done
secret() { cat "$folder/$1"; }

# libpq and asyncpg find passwords here (PGPASSFILE), so that none is in an address or on a command line.
keep pgpass <<END
$host:$port:prefect:prefect:$(secret prefect)
$host:$port:mlflow:mlflow:$(secret mlflow)
$host:$port:*:postgres:$(secret postgres)
END
# AWS's tools, boto3, DVC and pyarrow read this one (AWS_SHARED_CREDENTIALS_FILE).
keep aws <<END
[default]
aws_access_key_id = pbe
aws_secret_access_key = $(secret s3)
END
# SeaweedFS, the S3 store of compose.yaml.
keep s3.json <<END
{"identities": [{"name": "pbe", "credentials": [{"accessKey": "pbe", "secretKey": "$(secret s3)"}],
                 "actions": ["Admin", "Read", "Write", "List", "Tagging"]}]}
END
