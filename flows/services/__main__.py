"""See `flows.services.main`."""

import sys

from flows.services.main import main

sys.exit(main())
