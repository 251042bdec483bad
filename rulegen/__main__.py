"""Start the command `tlswall`, also as `python -m rulegen`.

What is set here has to be set before numpy and the rest are imported.
"""

from __future__ import annotations

import gc
import os
import sys


def main() -> None:
    """Run the command that the arguments name."""
    # a hundred thousand rows and no cycles among them: collecting garbage would cost a tenth of the time
    gc.set_threshold(1_000_000, 50, 50)
    # no matrix is ever multiplied: threads that wait for one would spin for a tenth of a second
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from analyzer.command import FOUND, on_demand
    from rulegen.cli import app

    try:
        on_demand(app)()
    except SystemExit as end:
        if end.code not in (0, FOUND):
            raise
        sys.stdout.flush()
        sys.stderr.flush()
        # all is closed, and to take a hundred thousand rows apart one by one takes longer than to write them
        os._exit(end.code)


if __name__ == "__main__":
    main()
