"""How fast the model works when work is waiting for it, and so how long a wait will be."""

SMOOTHING = 0.2  # weight of the newest batch
ASSUMED_SPEED = 50.0  # texts/s, until a batch has been measured: good for a hint, not for a refusal
PRUDENCE = 1.25  # a wait may be this much longer than predicted


class Pace:
    """The smoothed speed of batches that were as large as they could be."""

    def __init__(self) -> None:
        self._speed, self._measured = ASSUMED_SPEED, False

    def note(self, texts: int, seconds: float, *, more_waited: bool) -> None:
        """Counts a batch. One that nothing waited behind was small for want of work: if faster."""
        speed = texts / seconds
        if more_waited or speed > self._speed:
            self._speed += SMOOTHING * (speed - self._speed)
        self._measured |= more_waited

    def seconds(self, texts: int) -> float:
        """How long so many texts take: the best guess there is."""
        return texts / self._speed

    def too_late_by(self, texts: int, seconds_left: float) -> float:
        """Seconds by which so many texts would miss a deadline; 0 if they may make it, or nobody knows."""
        return max(0.0, PRUDENCE * self.seconds(texts) - seconds_left) if self._measured else 0.0
