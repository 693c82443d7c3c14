-- The databases of Prefect and MLflow, each with its own role. Run by psql as the user postgres; PBE_SECRETS
-- is the folder that secrets.sh wrote.
\set prefect_password `cat "$PBE_SECRETS/prefect"`
\set mlflow_password `cat "$PBE_SECRETS/mlflow"`
SET log_statement = 'none';
SET log_min_error_statement = 'panic'; -- a failed statement is not logged with its password
CREATE ROLE prefect LOGIN PASSWORD :'prefect_password';
CREATE ROLE mlflow LOGIN PASSWORD :'mlflow_password';
CREATE DATABASE prefect OWNER prefect;
CREATE DATABASE mlflow OWNER mlflow;
\connect prefect
CREATE EXTENSION IF NOT EXISTS pg_trgm; -- Prefect's search for names
