"""One Prefect flow for each DVC stage, and the pipeline that runs them. Only this package uses Prefect and DVC.

Importing it sets the environment variables that its libraries read when they are imported, so it comes before them.
"""

from flows import environment

environment.apply()
