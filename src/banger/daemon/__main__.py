"""`python -m banger.daemon`."""

from banger.daemon.main import main

raise SystemExit(main())
