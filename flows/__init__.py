"""One Prefect flow for each DVC stage, and the pipeline that runs them. Only this package uses Prefect and DVC.

Importing it sets the environment variables that its libraries read when they are imported, so it comes before them.
"""

import sys

from flows import environment

environment.apply()
if sys.argv[0] == "-m":  # `python -m flows.<stage>` imports its module after this package
    from flows import installation

    installation.exit_without_libraries()

    from flows import interruption

    interruption.exit_on_ctrl_c()
