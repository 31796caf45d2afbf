"""Pictures, and what TensorFlow makes of them as OpenVLA-OFT's training did: kept in ``openvla_pictures.npz``.

Of each result some rows and columns are kept. Made, with TensorFlow in an environment of its own, by::

    pip install 'tensorflow-cpu==2.15.*' 'numpy<2'
    python test/openvla_pictures.py
"""

from pathlib import Path
from typing import Any

import numpy as np

KEPT = Path(__file__).with_suffix(".npz")
SIZES = {  # seed -> height, width
    1: (480, 640), 2: (256, 256), 3: (720, 1280), 4: (224, 224), 5: (120, 160), 6: (225, 224), 7: (301, 97),
}  # fmt: skip
STAGES = ("as_jpeg", "shrink", "crop_middle")


def picture(seed: int) -> Any:
    """Return a picture (height, width, 3): patches of colour that run into each other, and noise."""
    height, width = SIZES[seed]
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (7, 9, 3)).astype(np.float64)
    rows, columns = np.linspace(0, 5.999, height), np.linspace(0, 7.999, width)
    above, left = rows.astype(int), columns.astype(int)
    down, right = (rows - above)[:, None, None], (columns - left)[None, :, None]
    upper = coarse[above][:, left] * (1 - right) + coarse[above][:, left + 1] * right
    lower = coarse[above + 1][:, left] * (1 - right) + coarse[above + 1][:, left + 1] * right
    smooth = upper * (1 - down) + lower * down
    return np.clip(smooth + random.normal(0, 10, smooth.shape), 0, 255).astype(np.uint8)


def thinned(values: Any) -> Any:
    """Return what is kept of a picture."""
    return values[:: 1 + len(values) // 48, :: 1 + values.shape[1] // 44]


def by_tensorflow(seed: int) -> dict[str, Any]:
    """Return what each stage makes of a picture, every stage from the one before."""
    import tensorflow as tf

    result, found = picture(seed), {}
    if result.shape != (224, 224, 3):
        decoded = tf.io.decode_image(tf.image.encode_jpeg(result), expand_animations=False, dtype=tf.uint8)
        small = tf.image.resize(decoded, (224, 224), method="lanczos3", antialias=True)
        result = tf.cast(tf.clip_by_value(tf.round(small), 0, 255), tf.uint8)
        found = {"as_jpeg": decoded.numpy(), "shrink": result.numpy()}
    side = tf.reshape(tf.clip_by_value(tf.sqrt(0.9), 0, 1), (1,))
    box = tf.stack([(1 - side) / 2, (1 - side) / 2, (1 - side) / 2 + side, (1 - side) / 2 + side], axis=1)
    values = tf.image.convert_image_dtype(tf.convert_to_tensor(result), tf.float32)[None]
    cropped = tf.clip_by_value(tf.image.crop_and_resize(values, box, tf.range(1), (224, 224))[0], 0, 1)
    return found | {"crop_middle": tf.image.convert_image_dtype(cropped, tf.uint8, saturate=True).numpy()}


if __name__ == "__main__":
    kept = {f"{name} {seed}": thinned(it) for seed in SIZES for name, it in by_tensorflow(seed).items()}
    np.savez_compressed(KEPT, **kept)
