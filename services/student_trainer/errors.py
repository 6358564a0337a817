"""The mistakes of a setting, a file or a teacher: shown to the user as they are, without a traceback."""


class UserError(ValueError):
    """Something that was given cannot be used; the text names it, its value and the remedy."""
