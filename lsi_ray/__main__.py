"""`python -m lsi_ray` is the `lsi` command."""

from lsi_ray.cli.main import main

main()
