"""``python -m bknb``."""

from bknb.cli import main

raise SystemExit(main())
