"""The environment variables that the libraries of the stages read at import. A variable that is already set is kept."""

import os

TELEMETRY_OFF = {
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "FIFTYONE_DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
}
QUIET = {
    "FIFTYONE_DATABASE_VALIDATION": "false",
    "FIFTYONE_SHOW_PROGRESS_BARS": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",  # a bar for every part that is loaded; 0 shows those of downloads again
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",  # the stages can be called without a flow
    "PREFECT_CLIENT_MAX_RETRIES": "2",  # 6 s; the default of 5 waits a minute at every call when the server is lost
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",  # the stages print their own lines; the server keeps the logs
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # messages about its own actors; the stage reports its failure
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "TOKENIZERS_PARALLELISM": "false",
}
FAST = {
    # glibc returns freed memory and faults it in again at the next step; keeping it cuts a CPU step to 0.7 of the time
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TOP_PAD_": str(64 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(4 * 2**30),
    "OMP_WAIT_POLICY": "passive",  # two spinning OpenMP threads beside any other busy process collapse
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1",  # seconds; at 0.2 the checks take a fifth of a core from the workers
}
PRIVATE_RAY = {"RAY_AUTH_MODE": "disabled"}  # otherwise a local cluster writes a token to the home folder


def apply() -> None:
    """Set each variable above that is not set yet; a Ray cluster named by RAY_ADDRESS keeps its authentication."""
    defaults = TELEMETRY_OFF | QUIET | FAST | ({} if os.environ.get("RAY_ADDRESS") else PRIVATE_RAY)
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
