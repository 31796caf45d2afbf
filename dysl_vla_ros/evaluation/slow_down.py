"""How much slower than the control an inference at full depth is. Imports no torch: the command line checks by it."""

from dysl_vla_ros.errors import SettingError

SLOW_DOWNS = (1.0, 1.5, 2.0, 3.0, 4.0)  # control periods of an inference at full depth, of a curve
MOST = 20.0


def require_slow_down(periods: float) -> float:
    """Return a number of control periods.

    Raises:
        SettingError: it is none that an inference can last.
    """
    if not 0.0 < periods <= MOST:
        raise SettingError(f"an inference lasts above 0 and at most {MOST:g} control periods, not {periods:g}")
    return periods
