"""How the weights came to be: models described, trained and judged. `python -m training --help` lists the commands."""
