"""`python -m tests.cases > docs/input-cases.md`."""

from tests.cases.document import text

if __name__ == "__main__":
    print(text(), end="")
