"""Start the command `tlswall`, also as `python -m rulegen`.

What is set here has to be set before numpy and the rest are imported.
"""

from __future__ import annotations

import gc
import os


def main() -> None:
    """Run the command that the arguments name."""
    # a hundred thousand rows and no cycles among them: collecting garbage would cost a tenth of the time
    gc.set_threshold(1_000_000, 50, 50)
    # no matrix is ever multiplied: threads that wait for one would spin for a tenth of a second
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from rulegen.cli import app

    app()


if __name__ == "__main__":
    main()
