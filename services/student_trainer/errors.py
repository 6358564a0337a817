"""The mistakes of a setting, a file or a teacher: shown to the user as they are, without a traceback."""


class UserError(ValueError):
    """Something that was given cannot be used; the text names it, its value and the remedy."""


_DIVERGED = (
    "learning_rate: the student has diverged, its predictions are not finite; begin anew with a lower one, "
    "or with precision no: what was answered is kept"
)


class DivergedError(UserError):
    """A student whose predictions are no numbers: no answer can teach it anything more."""

    def __init__(self, text: str = _DIVERGED) -> None:
        super().__init__(text)
