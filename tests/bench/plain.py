"""`dicomnode listen` that neither fsyncs nor keeps books: what the data path alone can do, for comparison."""

import os
from typing import Any

from dicomnode import bookkeeping
from dicomnode.__main__ import main
from dicomnode.intake import Intake


def _nothing(*_: Any, **__: Any) -> None:
    return None


if __name__ == "__main__":
    os.fsync = _nothing
    Intake._record = _nothing  # type: ignore[method-assign]
    bookkeeping.release = _nothing
    main()
