"""How far motion has grown after a start or a stop: ``control.action_scale`` and ``control.ramp_in``."""

from dysl_vla_ros.settings import ControlSettings

ROUNDING = 1e-12  # relative


class Ramp:
    """Counts commanded motion since the ramp began."""

    def __init__(self) -> None:
        """Begin a ramp."""
        self.again()

    def again(self) -> None:
        """Ramp in from here."""
        self._moving_for = 0.0  # s of commanded motion

    def factor(self, control: ControlSettings, acted: list[str]) -> float:
        """Return the factor on motion for this tick; the first tick of a ramp already moves a little.

        Args:
            control: scale and length of the ramp.
            acted: gets the names of the settings that make it less than 1.
        """
        factor = control.action_scale
        if control.action_scale != 1.0:
            acted.append("control.action_scale")
        grown = self._moving_for + 1.0 / control.rate
        if grown < control.ramp_in * (1.0 - ROUNDING):
            acted.append("control.ramp_in")
            factor *= grown / control.ramp_in
        return factor

    def moved(self, control: ControlSettings) -> None:
        """Count a tick of motion."""
        self._moving_for += 1.0 / control.rate
