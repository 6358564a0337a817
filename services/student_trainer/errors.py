"""The mistakes of a setting, a file or a teacher: shown to the user as they are, without a traceback."""


class UserError(ValueError):
    """Something that was given cannot be used; the text names it, its value and the remedy."""


_DIVERGED = (
    "learning_rate: the model has diverged, its predictions are not finite; begin anew with a lower one, or "
    "without mixed precision; answers that were paid are kept"
)


class DivergedError(UserError):
    """A model whose predictions are no numbers: nothing can teach it anything more."""

    def __init__(self, text: str = _DIVERGED) -> None:
        super().__init__(text)
