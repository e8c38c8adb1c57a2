"""One file per algorithm, with the paper it comes from."""
