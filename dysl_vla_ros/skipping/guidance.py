"""Prior-post skipping guidance: the continuity of the motion says when layers may be skipped (the paper's guidance).

Continuity is minus the mean difference between neighbouring actions: ``C_t = -(1/n) * sum of the last n d_j``. Fast or
jerky changes make it fall, smooth motion lets it rise towards 0. Where the paper is silent the definitions are ours:

- Time counts inferences. C, dC and the allow points are computed once for each :meth:`PriorPostGuidance.observe`.
- ``d_j`` is taken over the policy's normalised actions, ``n = min(k * m, differences there are)``, where m is automatic
  as for m = 1; of absolute targets over their differences (:meth:`ActionSpec.motions`), so that a value means the same
  for every kind of action.
- C is NaN until there is one difference; ``dC_t = C_t - C_{t-1}`` is 0 until two values of C exist. Both values are
  taken under the settings in effect, so that a changed window or weight is not mistaken for a change of the motion.
- Sign: dC < 0, continuity falls, moves a block's allow point later, so that more layers run.

A pure state machine, numpy only: tested without a model, replayed from a bag.
"""

import dataclasses
import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from dysl_vla_ros.errors import SettingError
from dysl_vla_ros.interfaces import ActionSpec, FloatArray
from dysl_vla_ros.settings import GuidanceSettings, actions_judged

HISTORY = 6400  # differences kept: the longest window (guidance.window, 100) times the largest m (64)
ROUNDING = 1e-5  # of a layer: what float32 actions leave uncertain must not be rounded up to a whole layer

Difference = tuple[float, float, float]
"""Lengths of the change in translation, rotation and gripper, unweighted, in normalised units."""


class PriorPostGuidance:
    """Allow points before an inference (prior), the verdict on its action after it (post).

    Once for each inference: ``configure`` (if settings changed), ``observe``, ``allow_points``, then
    ``needs_verification``, and ``verified`` where it was. A stop, a rejected action or a new instruction: ``reset``.
    """

    def __init__(
        self, blocks: tuple[tuple[int, int], ...], action: ActionSpec, points: Sequence[int] | None = None
    ) -> None:
        """Guide ``blocks`` of (first dynamic layer, one past the last) by actions of ``action``'s kind.

        Prior and post are off until ``configure`` is called.

        Args:
            blocks: of the partition.
            action: what the policy's actions are.
            points: number of layers of each block, from its first on, at which it can be left; None: all. An allow
                point behind the last of them closes the block.
        """
        self._blocks = blocks
        self._points = tuple(end - first for first, end in blocks) if points is None else tuple(points)
        self._action = action
        self._nothing_played: FloatArray = np.zeros((0, action.dimensions), np.float32)
        self._settings = GuidanceSettings(prior=False, verify=False).resolved({})
        self._actions_per_inference = 1
        self.reset()

    def configure(self, settings: GuidanceSettings, actions_per_inference: int) -> None:
        """Take settings over from the next ``observe`` on; history and allow points stay.

        Args:
            settings: with every "as calibrated" value already put in (:meth:`GuidanceSettings.resolved`).
            actions_per_inference: m, the actions played between two inferences; 0, automatic, counts as 1.

        Raises:
            SettingError: a value that the prior or the verification needs is still open; nothing is changed.
        """
        faults = []
        if settings.prior and settings.step <= 0.0:
            faults.append("guidance.step is 0.0 (as calibrated), set it or guidance.prior to false")
        if settings.prior and not settings.stride:
            faults.append("guidance.stride is empty (as calibrated), set it to paper or integral")
        if settings.verify and settings.verify_threshold <= 0.0:
            faults.append("guidance.verify_threshold is 0.0 (as calibrated), set it or guidance.verify to false")
        if settings.verify and not settings.verify_on:
            faults.append("guidance.verify_on is empty (as calibrated), set it to first or any")
        if faults:
            raise SettingError(f"no calibration has a value for these: {'; '.join(faults)}")
        self._settings = settings.resolved({})  # the warm-up, if it is still open
        self._actions_per_inference = actions_judged(actions_per_inference)

    def reset(self) -> None:
        """Begin an episode: no history, dC 0, allow points at the first dynamic layers, full depth for the warm-up."""
        self._differences: list[Difference] = []
        self._last = self._nothing_played  # (0 .. s, A) normalised actions that the next difference starts from
        self._positions = [0.0] * len(self._blocks)  # a block: layers that the allow point lies behind the first
        self._inferences = 0
        self._unverified = 0  # inferences since the last verification, the present one included
        self._correction = 0.0  # what that verification changed
        self._continuity = math.nan
        self._continuity_change = 0.0

    def observe(self, actions: FloatArray, gaps: Sequence[int] = ()) -> None:
        """Take in what was played since the last inference; call exactly once before each inference.

        Args:
            actions: (n, A) in physical units, each once, as the policy gave them; n may be 0.
            gaps: places, ascending in 0 .. n, of the actions before which an underrun lay (a zero twist without a
                reset): the difference across it is not counted, those after it are. n stands for the next actions.
        """
        assert list(gaps) == sorted(set(gaps)) and all(0 <= gap <= len(actions) for gap in gaps), f"gaps {gaps}"
        before = self._mean_continuity(self._differences)
        differences: list[Difference] = []
        for start, end in pairwise((0, *gaps, len(actions))):
            if start in gaps:
                self._last = self._nothing_played
            added, self._last = self._differences_of(actions[start:end])
            differences += added
        self._differences = (self._differences + differences)[-HISTORY:]
        self._inferences += 1
        self._unverified += 1
        self._continuity = self._mean_continuity(self._differences)
        self._continuity_change = 0.0 if math.isnan(before) else self._continuity - before
        self._move_allow_points()

    @property
    def continuity(self) -> float:
        """C, at most 0; NaN until two actions with no gap between them were observed."""
        return self._continuity

    @property
    def continuity_change(self) -> float:
        """Return dC; 0 until two values of C exist."""
        return self._continuity_change

    @property
    def warming_up(self) -> bool:
        """True while the inference that was observed for is one of the first ``guidance.warmup`` since a reset."""
        return max(self._inferences, 1) <= self._settings.warmup

    def allow_points(self) -> tuple[int, ...]:
        """Return for each block the first layer whose controller may fire; one past the last dynamic layer: closed.

        All are closed during the warm-up, which leaves the prior's own state alone; without the prior they stay at
        the first dynamic layers.
        """
        if self.warming_up:
            return tuple(end for _, end in self._blocks)
        if not self._settings.prior:
            return tuple(first for first, _ in self._blocks)
        places = [round(position) for position in self._positions]
        parts = zip(self._blocks, self._points, places, strict=True)
        return tuple(first + place if place < points else end for (first, end), points, place in parts)

    def candidate_change(self, candidate: FloatArray) -> float:
        """Return the dC that playing ``candidate`` would cause; 0 while C is undefined. Changes nothing.

        Args:
            candidate: (n, A) in physical units, the actions that this chunk plays before the next inference.
        """
        differences, _ = self._differences_of(candidate)
        change = self._mean_continuity(self._differences + differences) - self._mean_continuity(self._differences)
        return 0.0 if math.isnan(change) else change

    def needs_verification(self, candidate: FloatArray) -> str:
        """Return why ``candidate`` (n, A) must be computed again at full depth, "" where it need not. Changes nothing.

        "first drop": continuity would fall by more than eta1 and did not at this inference. "any drop" (with
        ``guidance.verify_on: any``): it would fall by more than eta1. "still apart": the last verification changed the
        action by more than ``guidance.verify_while``; what skipping gets wrong it goes on to get wrong. "in turn":
        ``guidance.verify_every`` inferences went by unverified. The last two are ours, not the paper's: a floor that
        goes astray does so smoothly, and continuity does not tell.
        """
        settings = self._settings
        if not settings.verify or not len(candidate):
            return ""
        if self.candidate_change(candidate) < -settings.verify_threshold:
            if settings.verify_on == "any":
                return "any drop"
            if self._continuity_change >= -settings.verify_threshold:
                return "first drop"
        if 0.0 < settings.verify_while < self._correction:
            return "still apart"
        return "in turn" if 0 < settings.verify_every < self._unverified else ""

    def actions_to_play(self, chunk: FloatArray, most: int) -> int:
        """Return how many actions of a chunk are to be played before the next inference, 1 to ``most``.

        The most, such that continuity would at none of them have fallen by more than eta1. 1 while continuity is not
        known, during the warm-up, and where eta1 is neither set nor calibrated. Changes nothing.

        Args:
            chunk: (n, A) in physical units, from the first action on that will be played.
            most: that may be played.
        """
        threshold = self._settings.verify_threshold
        if threshold <= 0.0 or self.warming_up or math.isnan(self._continuity):
            return 1
        for count in range(1, min(most, len(chunk)) + 1):
            if self.candidate_change(chunk[:count]) < -threshold:
                return max(count - 1, 1)
        return max(min(most, len(chunk)), 1)

    def verified(self, correction: float) -> None:
        """Take in that this inference's action was computed again at full depth.

        Args:
            correction: mean absolute difference of both actions, normalised.
        """
        self._unverified = 0
        self._correction = correction

    def _differences_of(self, actions: FloatArray) -> tuple[list[Difference], FloatArray]:
        """Return the differences that ``actions`` (n, A) add, and the actions that the next one would start from."""
        assert actions.ndim == 2 and actions.shape[1] == self._action.dimensions, f"actions of shape {actions.shape}"
        if not len(actions):
            return [], self._last
        chain = np.concatenate([self._last, self._action.normalise(actions)])
        moved = self._action.motions(chain.astype(np.float64))
        steps = np.diff(moved, axis=0)  # (n, A), fewer where too little came before
        moving, turning, gripping = self._action.motion_parts
        translation = np.linalg.norm(steps[:, moving], axis=1)
        rotation = np.linalg.norm(steps[:, turning], axis=1)  # no columns, so 0, where the policy has no rotation
        gripper = np.abs(steps[:, gripping]).sum(axis=1)  # one column, or none
        differences = list(zip(translation.tolist(), rotation.tolist(), gripper.tolist(), strict=True))
        return differences, chain[-self._action.targets_a_motion :]

    def _mean_continuity(self, differences: list[Difference]) -> float:
        """Return C over the window's end of ``differences``, NaN where there are none."""
        window = differences[-self._settings.window * self._actions_per_inference :]
        if not window:
            return math.nan
        weights = (1.0, self._settings.rotation_weight, self._settings.gripper_weight)
        return -float(np.sum(np.array(window) @ np.array(weights))) / len(window)

    def _move_allow_points(self) -> None:
        settings, change = self._settings, self._continuity_change
        if not settings.prior:
            self._positions = [0.0] * len(self._blocks)
            return
        if abs(change) < settings.dead_band:
            return
        if settings.stride == "paper":
            later = math.copysign(math.ceil(abs(change) / settings.step - ROUNDING), -change)
        else:
            later = -change / settings.step
        pairs = zip(self._positions, self._points, strict=True)
        self._positions = [min(max(position + later, 0.0), float(points)) for position, points in pairs]


def measuring_only(settings: GuidanceSettings) -> GuidanceSettings:
    """Return ``settings`` with prior and post off: continuity is measured, nothing follows from it."""
    return dataclasses.replace(settings, prior=False, verify=False)
