"""The board in training: each image is asked for many chains, and the stack is taught which hop to take where.

One image answers every chain: while the hand fetches the puck the action is the same for all; afterwards the expert
goes straight to the goal, so that its chunk towards any disc follows from where the hand is. In the layout ``causal``
patches see no words, and so the patches of an image are computed once for all its questions.

Lessons come first (:func:`lesson_at`), without action and place: hop after hop, each by chains that go on from it.
Asked for all chains from the start, layers learn to stay where they are, right for most, and leave that only after
hours.

Taught in training alone (the deployed policy has none of these heads), later on beside the action: what lies on each
patch, and where its dot leads; behind layer 4 + 4 h the disc after hop h, by a pointer of the action query over the
patches, and where it is right its place, read off the query (asked for the action alone, layers behind a right pointer
went to the middle of the board for 1,600 steps: the mean of all answers); and the action behind layers from which on it
can be known.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from dysl_vla_ros.policies.reference import (
    PADDING,
    STEM_STRIDE,
    ReferenceConfig,
    ReferenceNetwork,
    encode_words,
)
from dysl_vla_ros.simulation.board import DISCS, MOST_HOPS, BoardLayout
from dysl_vla_ros.simulation.demonstrations import BOARD_ARRAYS
from dysl_vla_ros.simulation.tasks import CONTROL_PERIOD, EXPERT_SPEED, Task
from dysl_vla_ros.training.augmentation import move, vary
from dysl_vla_ros.training.batches import CAMERAS, SCENE_CENTRE, SCENE_SCALE, SCENE_WEIGHT, Autocast, as_pictures
from dysl_vla_ros.training.dataset import demonstration_paths, load_episodes, mapped, readable

QUESTIONS = 8  # chains that an image is asked for
TAKEN_SHARE = 0.75  # of the images: the puck is taken, and the goal decides
READ_LAYERS, FOLLOW_LAYERS = 2, 4  # layers before what lies on a patch is read off it, and where its dot leads
FIRST_HOP, LAYERS_A_HOP = 4, 4  # layers before the disc of the start is asked for; between two hops
GAIN = 10.0  # 1/m: the expert's, from the way that is left to its speed's share
LONG_SHARE = 0.85  # of the chains of a lesson about long ones: else to stay where one is would be right too often
EARLY, READ, FOLLOW, POINT, PLACE = 0.5, 0.1, 0.3, 0.3, 1.0  # weights of the losses
LESSON_POINT, LESSON_PLACE = 1.0, 0.0  # in lessons, where no action is asked for
# what the board is first looked at for, and then each hop: where in the lessons the next one begins, of their steps
BEGINS = (0.0, 0.28, 0.5, 0.66, 0.8)
SOFT_START = 50  # steps in which the rate rises again at each of these: see soft_start
Hops = TypeVar("Hops", int, Tensor)


def lesson_at(step: int, steps: int) -> int | None:
    """Return the last hop that is taught at a step of lessons that last so many ``steps``; None: they are over.

    0: what lies where, and where dots lead; no hop is learned before these are seen.
    """
    return sum(step >= begins * steps for begins in BEGINS[1:]) if step < steps else None


def soft_start(step: int, steps: int) -> float:
    """Return the share of the learning rate at a step, where lessons last so many ``steps``; 1 where there are none.

    A lesson reaches layers that no gradient has reached, and so do all tasks behind the last one. At the full rate
    their first steps, all one way for want of second moments, spoil what is read off these layers.
    """
    begins = [begin * steps for begin in (*BEGINS, 1.0) if begin * steps <= step]
    return min(1.0, (step - begins[-1] + 1) / SOFT_START) if steps else 1.0


def layers_for(hops: Hops) -> Hops:
    """Return how many layers a policy has run when it is taught to know the disc after so many hops."""
    return FIRST_HOP + LAYERS_A_HOP * hops


def hops_asked(layers: int) -> range:
    """Return the hops that a stack of so many layers is taught one by one; a shallow one has none for late hops."""
    return range(min(MOST_HOPS, max(0, (layers - 1 - FIRST_HOP) // LAYERS_A_HOP)) + 1)


@dataclass(frozen=True)
class BoardBatch:
    """B images of the board, each asked for Q chains."""

    pictures: dict[str, Tensor]  # camera -> (B, 3, S, S) in 0..1
    words: Tensor  # (B, Q, W) ids
    proprioception: Tensor  # (B, P) physical units
    actions: Tensor  # (B, Q, H, A) normalised
    mask: Tensor  # (B, Q, H, 1): 0 where the chunk is not known
    scene: Tensor  # (B, Q, 6) normalised positions of puck and goal
    hops: Tensor  # (B, Q)
    way: Tensor  # (B, Q, hops + 1) discs; behind the goal the goal
    places: Tensor  # (B, 9, 2) of the discs, normalised as in ``scene``
    taken: Tensor  # (B,) bool: the goal decides
    discs: Tensor  # (B, 9, N) weights of the disc's centre among the N patches of the fixed camera
    colours: Tensor  # (B, 9)
    dots: Tensor  # (B, 9) their colours
    following: Tensor  # (B, 9) the discs that they lead to


class BoardBatches:
    """Makes batches of recorded boards for one policy."""

    def __init__(
        self, folder: Path, tasks: Sequence[Task], config: ReferenceConfig, device: torch.device, *,
        validation: bool = False, quiet: bool = False,
    ) -> None:  # fmt: skip
        """Open the episodes of the board's ``tasks``; those chains alone are asked for.

        Raises:
            DataError: a task has no episodes, or a file is damaged.
        """
        self._episodes = load_episodes(folder, tasks, validation=validation, quiet=quiet)
        self._config, self.device = config, device
        self._chains = [task.chain for task in tasks if task.chain]
        self._words = np.array([[encode_words(text, config) for text in task.instructions] for task in tasks])
        files = []
        for path in (path for task in tasks for path in demonstration_paths(folder, task, validation=validation)):
            with readable(path):
                files.append(mapped(path, (*BOARD_ARRAYS, "places", "discs")))
        self._colours, self._following, self._taken = (
            np.concatenate([file[name] for file in files]) for name in BOARD_ARRAYS
        )
        self._places, self._discs = (np.stack([file[name] for file in files]) for name in ("places", "discs"))
        self._kinds = np.flatnonzero(~self._taken), np.flatnonzero(self._taken)

    def __len__(self) -> int:
        return len(self._taken)

    def drawn(self, count: int, seed: tuple[int, ...], *, plain: bool = False, hops: int = 0) -> BoardBatch:
        """Return ``count`` images, augmented if not ``plain``, each asked for chains drawn from all tasks'.

        Above 0, ``hops`` draws most chains from those of at least so many, where there are any.
        """
        random = np.random.default_rng((*seed, 1))
        taken = random.random(count) < TAKEN_SHARE
        frames = np.where(taken, random.choice(self._kinds[1], count), random.choice(self._kinds[0], count))
        episodes, config = self._episodes, self._config
        asked = random.integers(len(self._chains), size=(count, QUESTIONS))
        long = [number for number, chain in enumerate(self._chains) if chain.hops >= hops]
        if hops and long:  # tasks may have none
            asked = np.where(random.random(asked.shape) < LONG_SHARE, random.choice(long, asked.shape), asked)
        asked[:, 0] = episodes.task[frames]  # one is what was recorded
        words = self._words[asked, random.integers(self._words.shape[1], size=asked.shape)]
        ways = np.stack([self._ways(frame, own) for frame, own in zip(frames, asked, strict=True)])  # (B, Q, K + 1)
        pictures = {
            camera: as_pictures(getattr(episodes, camera)[frames], config.cameras[camera], self.device)
            for camera in CAMERAS
        }
        proprioception = episodes.proprioception[frames]
        if not plain:
            pictures, proprioception = vary(pictures, random), move(proprioception, random)
        number = episodes.episode[frames]
        goals = np.take_along_axis(self._places[number][:, None], ways[:, :, -1:, None], axis=2)[:, :, 0]  # (B, Q, 2)
        actions, mask = self._chunks(frames, ways[:, :, -1], goals)
        scene = np.repeat(episodes.scene[frames][:, None], QUESTIONS, axis=1)
        scene[:, :, 3:5] = goals
        scene = (scene - np.array(SCENE_CENTRE * 2)) / SCENE_SCALE
        places = (self._places[number] - np.array(SCENE_CENTRE[:2])) / SCENE_SCALE
        colours = self._colours[frames]
        dots = np.take_along_axis(colours, self._following[frames], axis=1)
        lengths = np.array([chain.hops for chain in self._chains])[asked]
        tensor = lambda array: torch.from_numpy(np.ascontiguousarray(array)).to(self.device)  # noqa: E731
        return BoardBatch(
            pictures, tensor(words), tensor(proprioception), tensor(config.action.normalise(actions)),
            tensor(mask[..., None]), tensor(scene.astype(np.float32)), tensor(lengths), tensor(ways),
            tensor(places.astype(np.float32)), tensor(taken),
            tensor(patch_weights(self._discs[number], config.cameras["image"])), tensor(colours), tensor(dots),
            tensor(self._following[frames]),
        )  # fmt: skip

    def _ways(self, frame: int, asked: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the discs (Q, most hops + 1) of each chain's way on the board of a frame; behind the goal the goal."""
        places = self._places[self._episodes.episode[frame]]
        layout = BoardLayout(places, self._colours[frame], self._following[frame])
        ways = [layout.way(self._chains[number]) for number in asked.tolist()]
        return np.array([way + way[-1:] * (MOST_HOPS + 1 - len(way)) for way in ways])

    def _chunks(
        self, frames: NDArray[np.int64], ends: NDArray[np.int64], goals: NDArray[np.float64]
    ) -> tuple[NDArray[np.float32], ...]:
        """Return the actions (B, Q, H, A) towards each goal, physical units, and which of them are known (B, Q, H).

        ``ends``: the discs (B, Q) where the ways end, of which the first is the recorded one; ``goals``: where they lie
        (B, Q, 2), m.
        """
        episodes, horizon = self._episodes, self._config.action.horizon
        recorded, known = episodes.chunks(frames, horizon)
        actions = np.repeat(recorded[:, None], QUESTIONS, axis=1)
        mask = np.repeat(known[:, None], QUESTIONS, axis=1)
        other = ends != ends[:, :1]  # another goal than the recorded one
        soon = np.minimum(frames[:, None] + np.arange(horizon), len(self) - 1)
        mask *= ~(other[..., None] & self._taken[soon][:, None])  # of the others the expert would have gone elsewhere
        elsewhere = other & self._taken[frames][:, None]
        hand = np.repeat(episodes.proprioception[frames][:, None, :2], QUESTIONS, axis=1).astype(np.float64)
        for step in range(horizon):
            towards = np.clip(GAIN * (goals - hand), -1.0, 1.0) * EXPERT_SPEED * CONTROL_PERIOD
            actions[:, :, step, :2] = np.where(elsewhere[..., None], towards, actions[:, :, step, :2])
            hand += towards
        mask[elsewhere] = 1.0
        actions[elsewhere, :, 2:] = np.repeat(recorded[:, None, :1, 2:], QUESTIONS, axis=1)[elsewhere]
        return actions, mask.astype(np.float32)


def patch_weights(points: NDArray[np.floating], size: int) -> NDArray[np.float32]:
    """Return the weights (..., N) of the four patches around each point (..., 2: column, row) of an image."""
    side = size // STEM_STRIDE
    place = np.clip(points / STEM_STRIDE - 0.5, 0.0, side - 1.0)
    near = np.maximum(0.0, 1.0 - np.abs(place[..., None] - np.arange(side)))  # (..., 2, side)
    weights = near[..., 1, :, None] * near[..., 0, None, :]  # (..., side, side), row by row as the patches are
    return weights.reshape(*weights.shape[:-2], -1).astype(np.float32)


class BoardHeads(nn.Module):
    """What is asked of hidden states in training alone."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.read = nn.Linear(width, 2 * DISCS)  # colour of disc and of dot
        self.key, self.pointer = nn.Linear(width, width), nn.Linear(width, width)
        self.led_to, self.leads = nn.Linear(width, width), nn.Linear(width, width)
        self.place = nn.Linear(width, 2)  # of the disc that a query points at

    def points(self, patches: Tensor, query: Tensor) -> Tensor:
        """Return logits (B, Q, N) of queries (B, Q, D) over patches (B, N, D)."""
        return _scores(self.pointer(query), self.key(patches))

    def follows(self, patches: Tensor, discs: Tensor) -> Tensor:
        """Return logits (B, 9, N) over patches (B, N, D): where the dot of each disc, (B, 9, D), leads."""
        return _scores(self.leads(discs), self.led_to(patches))


def _scores(queries: Tensor, keys: Tensor) -> Tensor:
    return torch.einsum("bqd,bnd->bqn", queries, keys) / keys.shape[-1] ** 0.5


def asked_at_once(network: ReferenceNetwork, batch: BoardBatch, layers: int | None = None) -> list[Tensor]:
    """Return the hidden states before the first layer and behind each: (B, I + Q (T - I), D), I patches.

    ``layers``: how many are run; None: all.

    They are those of B Q passes in the layout ``causal``, but that the patches of an image are there once.
    """
    questions, start = batch.words.shape[1], network.words_at  # Q, I
    tail = network.tokens - start
    hidden, context = network.embed(batch.pictures, batch.words[:, 0], batch.proprioception)
    parts, real = [hidden[:, :start]], [context.token_mask[:, :start]]
    for ids in batch.words.unbind(1):  # (B, W)
        words = network.words(ids).to(hidden.dtype) + network.places[start : network.proprioception_at]
        parts += [words, hidden[:, network.proprioception_at :]]
        real += [ids != PADDING, context.token_mask[:, network.proprioception_at :]]
    together, token_mask = torch.cat(parts, 1), torch.cat(real, 1)
    group = torch.cat([torch.zeros(start), torch.arange(questions).repeat_interleave(tail) + 1]).to(hidden.device)
    seen = (group[None, :] == 0) | (group[:, None] == group[None, :])
    seen[:start, start:] = False
    attention = (~(seen & token_mask[:, None, :])).to(hidden.dtype)[:, None] * -1e4  # (B, 1, T', T')
    index = torch.cat([torch.arange(start), torch.arange(start, network.tokens).repeat(questions)])
    rotary = (network.rotary_cos[:, index], network.rotary_sin[:, index])
    states = [together]
    for layer in network.layers[: len(network.layers) - 1 if layers is None else layers]:
        states.append(layer(states[-1], attention_mask=attention, position_embeddings=rotary))
    if layers is not None:
        return states
    last = network.layers[-1]  # the library's own pass: the tokens that are read lie apart here
    states.append(LlamaDecoderLayer.forward(last, states[-1], attention_mask=attention, position_embeddings=rotary))
    return states


def board_loss(network: ReferenceNetwork, heads: BoardHeads, scene_head: nn.Module, batch: BoardBatch,
               autocast: Autocast, random: np.random.Generator) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return the training loss of a batch and the L1 of the actions, normalised."""
    questions, tail = batch.words.shape[1], network.tokens - network.words_at
    with autocast():
        states = asked_at_once(network, batch)
        ends = [state[:, network.words_at :].unflatten(1, (questions, tail)) for state in states]  # (B, Q, T - I, D)
        last = len(states) - 1
        predicted = _actions(network, ends[last])
        loss = error = _masked(predicted, batch)
        # early action: behind a layer that is drawn, of the questions that can be known there
        needed = torch.where(batch.taken[:, None], layers_for(batch.hops), FIRST_HOP)
        for layer in random.integers(min(FIRST_HOP + 1, last - 1), last, 2):
            loss = loss + EARLY / 2 * _masked(_actions(network, ends[layer]), batch, needed < int(layer))
        proprioception = network.norm(ends[last][:, :, network.proprioception_at - network.words_at])
        loss = loss + SCENE_WEIGHT * (scene_head(proprioception).float() - batch.scene).abs().mean()
        loss = loss + _taught(network, heads, batch, states, hops_asked(last), POINT, PLACE)
    return loss, error.detach()


def lesson_loss(
    network: ReferenceNetwork, heads: BoardHeads, batch: BoardBatch, autocast: Autocast, hops: int
) -> Tensor:
    """Return the loss of what is seen on the board and of the first ``hops`` hops; no layer behind them is run."""
    last = len(network.layers)
    with autocast():
        states = asked_at_once(network, batch, min(layers_for(hops), last - 1))
        return _taught(
            network, heads, batch, states, range(min(hops, hops_asked(last)[-1]) + 1), LESSON_POINT, LESSON_PLACE
        )


def _taught(
    network: ReferenceNetwork, heads: BoardHeads, batch: BoardBatch, states: Sequence[Tensor], hops: range,
    point: float, place: float,
) -> Tensor:  # fmt: skip
    """Return the loss of what lies on patches, of where dots lead, and of disc and place after each of ``hops``.

    ``point`` and ``place`` weigh the last two. The place is asked for where the pointer already names the disc, and in
    lessons not at all: its L1 outweighs the pointer. With it hop 1 stood at chance for 370 steps of lessons, without it
    it was right to 90% after 300.
    """
    last, patches_there = len(states) - 1, batch.discs.shape[-1]
    patches = network.norm(states[min(READ_LAYERS, last)])[:, :patches_there]
    there = torch.einsum("bdn,bnw->bdw", batch.discs, patches.float())
    read = heads.read(there).float().unflatten(-1, (2, DISCS))  # (B, 9, 2, colours)
    loss = torch.zeros((), device=read.device)
    for number, colours in enumerate((batch.colours, batch.dots)):
        loss = loss + READ * functional.cross_entropy(read[:, :, number].flatten(0, 1), colours.flatten())
    patches = network.norm(states[min(FOLLOW_LAYERS, last)])[:, :patches_there]
    led = heads.follows(patches, torch.einsum("bdn,bnw->bdw", batch.discs, patches.float())).float()
    wanted = torch.take_along_dim(batch.discs, batch.following[..., None], 1)  # (B, 9, N)
    loss = loss + FOLLOW * functional.cross_entropy(led.flatten(0, 1), wanted.flatten(0, 1))
    for hop in hops:
        pointed, query = _pointed(network, heads, batch, states, hop)
        wanted = torch.take_along_dim(batch.discs, batch.way[:, :, hop, None], 1)  # (B, Q, N)
        loss = loss + point * functional.cross_entropy(pointed.flatten(0, 1), wanted.flatten(0, 1))
        known = _named(pointed, batch) == batch.way[:, :, hop]  # (B, Q)
        there = torch.take_along_dim(batch.places, batch.way[:, :, hop, None], 1)  # (B, Q, 2)
        loss = loss + place * ((heads.place(query).float() - there).abs().mean(-1) * known).mean()
    return loss


def _pointed(
    network: ReferenceNetwork, heads: BoardHeads, batch: BoardBatch, states: Sequence[Tensor], hop: int
) -> tuple[Tensor, Tensor]:
    """Return logits (B, Q, N) over patches and the queries (B, Q, D) that point, behind the first layer to know it."""
    state = network.norm(states[min(layers_for(hop), len(states) - 1)])
    query = state[:, network.words_at :].unflatten(1, (batch.words.shape[1], -1))[:, :, -1]
    return heads.points(state[:, : batch.discs.shape[-1]], query).float(), query


def _named(pointed: Tensor, batch: BoardBatch) -> Tensor:
    """Return the discs (B, Q) that logits (B, Q, N) over patches point at most."""
    return torch.einsum("bqn,bdn->bqd", pointed.detach().softmax(-1), batch.discs).argmax(-1)


def _actions(network: ReferenceNetwork, ends: Tensor) -> Tensor:
    return network.read_out(ends.flatten(0, 1)).float().unflatten(0, ends.shape[:2])


def _masked(predicted: Tensor, batch: BoardBatch, asked: Tensor | None = None) -> Tensor:
    mask = batch.mask if asked is None else batch.mask * asked[:, :, None, None]
    return ((predicted - batch.actions).abs() * mask).sum() / (mask.sum() * predicted.shape[-1] + 1e-6)


@torch.no_grad()
def right_discs(network: ReferenceNetwork, heads: BoardHeads, batch: BoardBatch) -> dict[int, tuple[int, int]]:
    """Return, by hops, how many questions the pointer answers rightly, and of how many.

    Each is read behind the first layer that is taught to know its answer, so that lessons are seen to be learned too.
    """
    states = asked_at_once(network, batch)
    found = {}
    for hops in range(MOST_HOPS + 1):
        right = _named(_pointed(network, heads, batch, states, hops)[0], batch) == batch.way[:, :, -1]
        asked = batch.hops == hops
        found[hops] = int(right[asked].sum()), int(asked.sum())
    return found
