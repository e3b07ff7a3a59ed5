"""`python -m rowhouse.cli`."""

from .main import main

main()
