"""The one exception by which the science says: this study is not ours to process."""


class Refused(Exception):
    """The study is refused, with a reason.

    code: one of the reason codes of design.md contract 15 ("phantom", "too-few-slices").
    sentence: the reason in words that a radiographer understands.
    """

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(code, sentence)
        self.code = code
        self.sentence = sentence

    def __str__(self) -> str:
        return f"{self.code}: {self.sentence}"
