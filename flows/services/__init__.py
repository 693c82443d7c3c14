"""The servers that people use beside the pipeline, started and stopped together: `make up`, `make down`, `make status`.

Prefect's server and worker, MLflow, the painting page and the reports; FiftyOne's App on request. supervisord starts
them, keeps their logs in one folder, and starts a server again that ends. Whatever runs below it has the project's
folder in its environment, by which `down` finds it, also when supervisord was killed.
"""
