"""The verbs: one Prefect flow per DVC stage, and the pipeline that reproduces them in order.

The only home of Prefect and DVC. Importing this package sets the environment its libraries read when *they* are
imported (telemetry off, quiet logs), so it must happen before any of them: see flows/environment.py.
"""

from flows import environment

environment.apply()
