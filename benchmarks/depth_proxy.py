"""When is depth needed? A board of discs in images, chains of hops from disc to disc, small transformers of two depths.

A scene is a 3 x 3 board of nine discs in nine colours; each disc has a dot in the colour of another one. The hand first
fetches the puck, whatever is asked for, and then takes it to a disc that the instruction names by a colour and up to
three hops. Two grounds:

- ``programs``: a hop leads to the disc beside (left, right, above, below) or to the disc whose colour the dot shows; no
  move follows a move, for two of them are one longer move, found at one glance. All tokens see all, as in the
  reference policy. One program in five with two hops or more is held out: never trained.
- ``chains``: every hop follows the dot. Patches do not see the words, as in decoders that read images first. Held out
  are chains of two and three hops from some colours.

A net sees the image in patches, the words, and the hand. It answers with a displacement (L1) and with a pointer over
patches (cross entropy); a deep one is also taught hop by hop: read behind layer 2 + 2h the same pointer must find the
disc after hop h. Usage:

    python3 benchmarks/depth_proxy.py OUT --ground chains --nets deep shallow --minutes 30

Goes on where OUT has a state; writes OUT/GROUND-NET.json (a row each evaluation) and OUT/GROUND.png.
"""

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

SIDE, PITCH, PATCH = 3, 16, 12  # discs, pixels a disc, pixels a patch: discs and patches do not line up
PIXELS = SIDE * PITCH
GRID = PIXELS // PATCH  # patches a side
DISCS = SIDE * SIDE
HOPS = 3  # at most
DOT = 4  # the hops 0 to 3 are moves
MOVES = ((0, -1), (0, 1), (-1, 0), (1, 0))  # (row, column): left, right, above, below
WORDS = ("left", "right", "above", "below", "dot")
NO_HOP = 5  # padding
LEVELS = (0.15, 0.2, 0.28, 0.37)  # of the hops that are drawn: about equal among the ways that stay on the board
FETCHING = 0.25  # share of moments in which the hand has not taken the puck yet
HELD_OUT = 5  # one program in so many
GROUNDS = {"programs": (0.5, False), "chains": (1.0, True)}  # share of dots where a move may come too; causal
COLOURS = np.array(
    [(230, 60, 50), (60, 170, 70), (60, 90, 220), (240, 200, 50), (240, 140, 40), (150, 70, 190), (70, 200, 210),
     (240, 150, 190), (120, 80, 50)], np.float32) / 255.0  # fmt: skip


@dataclass
class Batch:
    """Scenes with a program each; B of them."""

    image: Tensor  # (B, 3, PIXELS, PIXELS)
    words: Tensor  # (B, 1 + HOPS) colour, hops
    hand: Tensor  # (B, 3) place in 0..1, and whether it holds the puck
    path: Tensor  # (B, 1 + HOPS) patch with the centre of the disc after hop h; behind the last hop it stays
    level: Tensor  # (B,) hops of the program
    target: Tensor  # (B, 2) displacement, in sides of the board
    held_out: Tensor  # (B,) bool
    fetching: Tensor  # (B,) bool


def is_held_out(words: np.ndarray) -> np.ndarray:
    """Tell which instructions (B, 1 + HOPS) nobody is taught: by their words alone, from two hops on.

    Chains: (colour + hops) % 3 == 0, three colours each for two hops and for three. Others: one program in five.
    """
    hops = (words[:, 1:] != NO_HOP).sum(1)
    chain = np.isin(words[:, 1:], (DOT, NO_HOP)).all(1)
    digits = words @ (11 ** np.arange(words.shape[1]))
    program = (digits * 2654435761 % 2**32) // 2**16 % HELD_OUT == 0
    return (hops >= 2) & np.where(chain, (words[:, 0] + hops) % 3 == 0, program)


def draw(count: int, random: np.random.Generator, dots: float, held_out: bool | None = False) -> Batch:
    """Draw scenes and instructions; ``held_out``: only such ones, None: whatever comes."""
    parts = []
    while sum(len(part[0]) for part in parts) < count:
        parts.append(_scenes(2 * count, random, dots, held_out))
    colours, shown, words, path, level = (np.concatenate(columns)[:count] for columns in zip(*parts, strict=True))
    places = _places(random, count)
    fetching = random.random(count) < FETCHING
    puck = random.random((count, 2)).astype(np.float32)
    hand = np.where(fetching[:, None], random.random((count, 2)), puck).astype(np.float32)
    way = np.take_along_axis(places, path[..., None], axis=1)  # (B, 1 + HOPS, 2)
    goal = way[:, -1] / PIXELS
    cells = (way // PATCH).astype(np.int64)  # two centres are never in one patch
    target = np.where(fetching[:, None], puck, goal) - hand
    image = _render(colours, shown, places, np.where(fetching[:, None], puck, hand))
    tensor = torch.from_numpy
    patches = cells @ np.array([GRID, 1])
    holding = np.column_stack([hand, ~fetching]).astype(np.float32)
    return Batch(
        tensor(image), tensor(words), tensor(holding), tensor(patches), tensor(level),
        tensor(target.astype(np.float32)), tensor(is_held_out(words)), tensor(fetching),
    )  # fmt: skip


def _scenes(count: int, random: np.random.Generator, dots: float, held_out: bool | None) -> tuple[np.ndarray, ...]:
    """Return colours and dots of the discs, programs, ways; those whose way leaves the board are left out."""
    colours = random.permuted(np.tile(np.arange(DISCS), (count, 1)), axis=1)
    ring = random.permuted(np.tile(np.arange(DISCS), (count, 1)), axis=1)  # dots lead through all discs
    following = np.empty_like(ring)
    np.put_along_axis(following, ring, np.roll(ring, -1, axis=1), axis=1)
    shown = np.take_along_axis(colours, following, axis=1)
    level = random.choice(HOPS + 1, count, p=LEVELS)
    hops = np.where(random.random((count, HOPS)) < dots, DOT, random.integers(0, DOT, (count, HOPS)))
    for hop in range(1, HOPS):
        hops[hops[:, hop - 1] != DOT, hop] = DOT
    hops[np.arange(HOPS) >= level[:, None]] = NO_HOP
    first = random.integers(0, DISCS, count)
    here = np.argmax(colours == first[:, None], axis=1)
    path, valid = [here], np.ones(count, bool)
    for hop in hops.T:
        row, column = np.divmod(here, SIDE)
        step = np.array([*MOVES, (0, 0), (0, 0)])[hop]
        row, column = row + step[:, 0], column + step[:, 1]
        valid &= (row >= 0) & (row < SIDE) & (column >= 0) & (column < SIDE)
        moved = np.clip(row, 0, SIDE - 1) * SIDE + np.clip(column, 0, SIDE - 1)
        here = np.where(hop == DOT, np.take_along_axis(following, here[:, None], axis=1)[:, 0], moved)
        path.append(here)
    words = np.column_stack([first, hops])
    if held_out is not None:
        valid &= is_held_out(words) == held_out
    return tuple(column[valid] for column in (colours, shown, words, np.stack(path, 1), level))


def _places(random: np.random.Generator, count: int) -> np.ndarray:
    """Return the discs' centres (B, DISCS, 2), row and column in pixels, a quarter of the pitch from their cells'."""
    cells = np.stack(np.divmod(np.arange(DISCS), SIDE), -1) * PITCH + PITCH / 2
    return (cells + random.uniform(-0.25, 0.25, (count, DISCS, 2)) * PITCH * 0.5).astype(np.float32)


def _render(colours: np.ndarray, dots: np.ndarray, places: np.ndarray, puck: np.ndarray) -> np.ndarray:
    rows, columns = np.mgrid[:PIXELS, :PIXELS] + 0.5
    cell = (rows // PITCH * SIDE + columns // PITCH).astype(int)  # a disc never leaves its own
    own = places[:, cell]  # (B, PIXELS, PIXELS, 2)
    away = np.hypot(own[..., 0] - rows, own[..., 1] - columns)[..., None]
    image = np.where(away < 5.5, COLOURS[colours][:, cell], np.float32(0.85))
    image = np.where(away < 2.75, COLOURS[dots][:, cell], image)
    puck = puck[:, None, None, :] * PIXELS
    away = np.hypot(puck[..., 0] - rows, puck[..., 1] - columns)[..., None]
    image = np.where((away > 1.0) & (away < 2.2), np.float32(0.0), image)  # a ring: what is below shows
    return np.ascontiguousarray(image.transpose(0, 3, 1, 2).astype(np.float32))


class Net(nn.Module):
    """Patches, words, hand and one query through pre-norm layers; all tokens see all."""

    def __init__(self, layers: int, causal: bool, width: int = 64, heads: int = 4) -> None:
        """Make new weights from torch's global generator; ``causal``: patches see patches alone."""
        super().__init__()
        tokens = GRID * GRID + 1 + HOPS + 2
        hidden = torch.zeros(tokens, tokens, dtype=torch.bool)
        hidden[: GRID * GRID, GRID * GRID :] = causal
        self.register_buffer("hidden", hidden, persistent=False)
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 4, 4), nn.GELU(), nn.Conv2d(32, width, PATCH // 4, PATCH // 4))
        self.colour, self.hop = nn.Embedding(DISCS, width), nn.Embedding(NO_HOP + 1, width)
        self.hand, self.query = nn.Linear(3, width), nn.Parameter(torch.zeros(1, 1, width))
        self.place = nn.Parameter(0.02 * torch.randn(1, tokens, width))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        self.action = nn.Linear(width, 2)
        self.key, self.pointer = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, batch: Batch) -> list[Tensor]:
        """Return the hidden states before the first layer and behind each."""
        patches = self.stem(batch.image).flatten(2).transpose(1, 2)
        words = torch.cat([self.colour(batch.words[:, :1]), self.hop(batch.words[:, 1:])], 1)
        tail = [self.hand(batch.hand)[:, None], self.query.expand(len(patches), -1, -1)]
        hidden = [torch.cat([patches, words, *tail], 1) + self.place]
        for layer in self.layers:
            hidden.append(layer(hidden[-1], src_mask=self.hidden))
        return hidden

    def point(self, hidden: Tensor) -> Tensor:
        """Return the query's logits over patches, (B, GRID * GRID)."""
        hidden = self.norm(hidden)
        keys = self.key(hidden[:, : GRID * GRID])
        return torch.einsum("bd,bnd->bn", self.pointer(hidden[:, -1]), keys) / keys.shape[-1] ** 0.5


def hop_layers(layers: int) -> list[int]:
    """Return behind which layer the disc after each hop is asked for; none in a net that is too shallow for it."""
    asked = [2 + 2 * hop for hop in range(HOPS + 1)]
    return asked if asked[-1] < layers else []


def loss_of(net: Net, batch: Batch, hops: bool) -> Tensor:
    """Return L1 of the displacement and the pointers' cross entropies, a scalar."""
    hidden = net(batch)
    last = net.norm(hidden[-1])[:, -1]
    taken = ~batch.fetching
    loss = (net.action(last) - batch.target).abs().mean()
    loss = loss + 0.3 * functional.cross_entropy(net.point(hidden[-1])[taken], batch.path[taken, -1])
    if hops:
        for hop, layer in enumerate(hop_layers(len(net.layers))):
            loss = loss + 0.1 * functional.cross_entropy(net.point(hidden[layer]), batch.path[:, hop])
    return loss


@torch.no_grad()
def judge(net: Net, dots: float, count: int = 1500) -> dict[str, object]:
    """Return, for trained and held-out programs, by number of hops: right disc behind the last layer and each; L1."""
    net.eval()
    row: dict[str, object] = {}
    for name, held_out in (("trained", False), ("held_out", True)):
        batch = draw(count, np.random.default_rng(1), dots, held_out)
        hidden = net(batch)
        error = (net.action(net.norm(hidden[-1])[:, -1]) - batch.target).abs().mean(1)
        right = torch.stack([net.point(state).argmax(1) == batch.path[:, -1] for state in hidden])
        for level in range(2 if held_out else 0, HOPS + 1):
            these = (batch.level == level) & ~batch.fetching
            layers = right[:, these].float().mean(1).tolist()
            row[f"{name} k{level}"] = {
                "right": layers[-1], "l1": float(error[these].mean()), "by_layer": layers, "samples": int(these.sum())
            }  # fmt: skip
    batch = draw(count, np.random.default_rng(2), dots)
    error = (net.action(net.norm(net(batch)[-1])[:, -1]) - batch.target).abs().mean(1)
    row["fetching l1"] = float(error[batch.fetching].mean())
    net.train()
    return row


MOMENTS = ("exp_avg", "exp_avg_sq")  # of AdamW
NETS = {"deep": (9, True), "deep_unguided": (9, False), "shallow": (3, False)}  # layers, whether taught hop by hop


def train(ground: str, name: str, out: Path, minutes: float, seed: int, size: int = 128) -> None:
    """Train a net for so many minutes of this process's CPU time in all, going on where it was left."""
    (layers, hops), (dots, causal) = NETS[name], GROUNDS[ground]
    torch.manual_seed(seed)
    net = Net(layers, causal)
    optimiser = torch.optim.AdamW(net.parameters(), 1e-3, (0.9, 0.98), weight_decay=0.01)
    state, table = out / f"{ground}-{name}.safetensors", out / f"{ground}-{name}.json"
    rows = json.loads(table.read_text()) if table.exists() else []
    step, seconds = (rows[-1]["step"], rows[-1]["cpu_s"]) if rows else (0, 0.0)
    if rows:
        _restore(net, optimiser, state, step)
    bar = tqdm(desc=f"{ground} {name}", unit="step", initial=step, mininterval=5.0)
    began, told = time.process_time() - seconds, seconds
    while seconds < 60.0 * minutes:
        batch = draw(size, np.random.default_rng([seed, step]), dots)
        for group in optimiser.param_groups:
            group["lr"] = 1e-3 * min(1.0, (step + 1) / 200)
        optimiser.zero_grad()
        loss = loss_of(net, batch, hops)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        step, seconds = step + 1, time.process_time() - began
        bar.update()
        if seconds - told > 150.0 or seconds >= 60.0 * minutes:
            told = seconds
            rows.append({"step": step, "cpu_s": round(seconds, 1), "loss": float(loss), **judge(net, dots)})
            _keep(net, optimiser, state)
            table.write_text(json.dumps(rows, indent=1))
            bar.write(
                f"{ground} {name} {step}: "
                + " ".join(f"{key}={value['right']:.2f}" for key, value in rows[-1].items() if isinstance(value, dict))
            )
    bar.close()


def _keep(net: Net, optimiser: torch.optim.Optimizer, file: Path) -> None:
    tensors = {f"net.{name}": value.contiguous() for name, value in net.state_dict().items()}
    for index, moments in optimiser.state_dict()["state"].items():
        tensors |= {f"{key}.{index}": moments[key].contiguous() for key in MOMENTS}
    save_file(tensors, file.with_suffix(".new"))
    file.with_suffix(".new").rename(file)


def _restore(net: Net, optimiser: torch.optim.Optimizer, file: Path, step: int) -> None:
    tensors = load_file(file)
    net.load_state_dict({name[4:]: value for name, value in tensors.items() if name.startswith("net.")})
    kept = optimiser.state_dict()
    kept["state"] = {
        index: {"step": torch.tensor(float(step))} | {key: tensors[f"{key}.{index}"] for key in MOMENTS}
        for index in range(len(list(net.parameters())))
        if f"exp_avg.{index}" in tensors
    }
    optimiser.load_state_dict(kept)


def draw_picture(ground: str, out: Path) -> None:
    """Draw right discs over CPU time for every net and level, and a scene."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, HOPS + 2, figsize=(17, 3.4))
    scene = draw(1, np.random.default_rng(3), GROUNDS[ground][0])
    axes[0].imshow(scene.image[0].permute(1, 2, 0).numpy())
    said = [WORDS[hop] for hop in scene.words[0, 1:].tolist() if hop != NO_HOP]
    program = " ".join([f"colour {int(scene.words[0, 0])}", *said])
    axes[0].set_title(f"{program} -> patch {int(scene.path[0, -1])}")
    axes[0].axis("off")
    for level, axis in enumerate(axes[1:]):
        for index, name in enumerate(name for name in NETS if (out / f"{ground}-{name}.json").exists()):
            rows = json.loads((out / f"{ground}-{name}.json").read_text())
            for kind, style in (("trained", "-"), ("held_out", ":")):
                if f"{kind} k{level}" in rows[-1]:
                    values = [100 * row[f"{kind} k{level}"]["right"] for row in rows]
                    minutes = [row["cpu_s"] / 60 for row in rows]
                    axis.plot(minutes, values, style, color=f"C{index}", label=f"{name}, {kind}")
        axis.set(title=f"{level} hops", xlabel="minutes of one core", ylim=(0, 101))
    axes[1].set_ylabel("right disc, %")
    axes[-1].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(out / f"{ground}.png", dpi=110)


def main() -> None:
    """Train what is asked for, one net after the other, and draw what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--ground", choices=GROUNDS, default="programs")
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--minutes", type=float, default=30.0, help="CPU time a net, in all (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.nets:
        train(arguments.ground, name, arguments.out, arguments.minutes, arguments.seed)
    draw_picture(arguments.ground, arguments.out)


if __name__ == "__main__":
    main()
