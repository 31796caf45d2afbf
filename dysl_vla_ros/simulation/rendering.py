"""Pictures of a MuJoCo scene without a screen: a fixed camera in front of the table and one at the wrist."""

import os

os.environ.setdefault("MUJOCO_GL", "osmesa")  # read by mujoco at import; EGL is faster where there is a GPU
os.environ.setdefault("LP_NUM_THREADS", "1")  # OSMesa's rasteriser: its threads would take the policy's cores

from collections.abc import Sequence

import mujoco
import numpy as np
from numpy.typing import NDArray

from dysl_vla_ros.simulation.decorations import Decoration

WRIST_CAMERA = "gripperPOV"  # a camera of Meta-World's robot model


def prepare_model(model: mujoco.MjModel, marker: tuple[float, float, float] | None) -> None:
    """Make a model quick to render on a CPU and show its goal site as a coloured ball, or no site at all."""
    model.vis.quality.shadowsize = 0
    model.vis.quality.offsamples = 0
    model.site_rgba[:, 3] = 0.0
    if marker is not None:
        goal = model.site("goal").id
        model.site_rgba[goal] = (*marker, 1.0)
        model.site_size[goal] = 0.03


class SceneRenderer:
    """Renders one environment's scene from the fixed or the wrist camera.

    One renderer a size is made and kept: a renderer made after another was garbage-collected gives black pictures.
    """

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        self._model, self._data = model, data
        self._renderers: dict[tuple[int, int], mujoco.Renderer] = {}
        self._fixed = mujoco.MjvCamera()
        self._fixed.type = mujoco.mjtCamera.mjCAMERA_FREE
        self._fixed.lookat[:] = (0.0, 0.68, 0.14)
        self._fixed.distance, self._fixed.azimuth, self._fixed.elevation = 1.05, 146.0, -35.0

    def render(self, camera: str, width: int, height: int, decorations: Sequence[Decoration] = ()) -> NDArray[np.uint8]:
        """Return one picture (height, width, 3) rgb; ``camera`` is ``image`` (fixed) or ``wrist_image``."""
        renderer = self._renderers.get((width, height))
        if renderer is None:
            self._model.vis.global_.offwidth = max(self._model.vis.global_.offwidth, width)
            self._model.vis.global_.offheight = max(self._model.vis.global_.offheight, height)
            renderer = self._renderers[width, height] = mujoco.Renderer(self._model, height, width)
        renderer.update_scene(self._data, camera=WRIST_CAMERA if camera == "wrist_image" else self._fixed)
        for decoration in decorations:
            _draw(renderer.scene, decoration)
        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        return renderer.render().copy()

    def close(self) -> None:
        """Give the pictures' memory back, about 150 MB a scene. No picture can be had afterwards.

        ``mujoco.Renderer.close`` (3.3.0) frees the context before what was made in it, which spoils another renderer's
        pictures; so each context is made current and emptied first.
        """
        for renderer in self._renderers.values():
            renderer._gl_context.make_current()
            renderer._mjr_context.free()
            renderer._gl_context.free()
            renderer._mjr_context = renderer._gl_context = None
        self._renderers.clear()


_SHAPES = {"ball": mujoco.mjtGeom.mjGEOM_SPHERE, "block": mujoco.mjtGeom.mjGEOM_BOX}


def _draw(scene: mujoco.MjvScene, decoration: Decoration) -> None:
    mujoco.mjv_initGeom(
        scene.geoms[scene.ngeom],
        _SHAPES[decoration.shape],
        np.full(3, decoration.half_size),
        np.asarray(decoration.position, dtype=np.float64),
        np.eye(3).flatten(),
        np.array([*decoration.colour, 1.0], dtype=np.float32),
    )
    scene.ngeom += 1
