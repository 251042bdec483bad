"""The version of the distribution; reading it from the metadata would take longer than a small capture."""

from typing import Final

VERSION: Final = "0.1.0"
