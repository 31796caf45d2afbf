"""Which scenes are for what: the one place that divides a task's seeds, so that nothing is tuned on test scenes.

A seed gives a scene. Demonstrations are recorded from the first range, everything that is chosen (static layers,
thresholds, floors) is played on the second, tables are made from the third.
"""

from dysl_vla_ros.errors import DataError

DEMONSTRATION_SEEDS = range(0, 5_000)
CALIBRATION_SEEDS = range(5_000, 10_000)
TEST_SEEDS = range(10_000, 20_000)  # behind it lie scenes that adapters of earlier releases were calibrated on
OTHER_SCENE = 1_000_000  # from a scene to one that is for nothing but its pictures, shown in place of the first's


def calibration_seeds(count: int) -> range:
    """Return the first ``count`` calibration seeds.

    Raises:
        DataError: there are not that many: the next ones are for tests.
    """
    if not 1 <= count <= len(CALIBRATION_SEEDS):
        raise DataError(f"{count} calibration scenes a task are wanted, there are 1 to {len(CALIBRATION_SEEDS)}")
    return CALIBRATION_SEEDS[:count]
