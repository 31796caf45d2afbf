"""Pictures of a MuJoCo scene without a screen: a fixed camera in front of the table and one at the wrist.

MuJoCo hands every triangle of the scene to OpenGL, seen or not, and a software rasteriser spends most of its time on
those of the arm that no camera has in view. They are left out here; pictures keep every bit.
"""

import os

os.environ.setdefault("MUJOCO_GL", "osmesa")  # read by mujoco at import; EGL is faster where there is a GPU
os.environ.setdefault("LP_NUM_THREADS", "1")  # OSMesa's rasteriser: its threads would take the policy's cores

from collections.abc import Sequence
from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

from dysl_vla_ros.simulation.decorations import Decoration

WRIST_CAMERA = "gripperPOV"  # a camera of Meta-World's robot model
DISC_HALF_HEIGHT = 0.001  # m
HIDDEN = 5  # a group of geoms that MuJoCo does not draw unless it is told to


def prepare_model(model: mujoco.MjModel, marker: tuple[float, float, float] | None) -> None:
    """Make a model quick to render on a CPU and show its goal site as a coloured ball, or no site at all."""
    model.vis.quality.shadowsize = 0
    model.vis.quality.offsamples = 0
    model.site_rgba[:, 3] = 0.0
    if marker is not None:
        goal = model.site("goal").id
        model.site_rgba[goal] = (*marker, 1.0)
        model.site_size[goal] = 0.03


@dataclass(frozen=True)
class View:
    """Where the fixed camera stands: MuJoCo's free camera."""

    look_at: tuple[float, float, float]  # m
    distance: float  # m
    azimuth: float  # degrees
    elevation: float  # degrees, negative from above


TABLE = View((0.0, 0.68, 0.14), 1.05, 146.0, -35.0)
BOARD = View((0.0, 0.755, 0.02), 0.47, -90.0, -55.0)  # across from the robot, so that the arm hides little of the board


class SceneRenderer:
    """Renders one environment's scene from the fixed or the wrist camera.

    One renderer a size is made and kept: a renderer made after another was garbage-collected gives black pictures.
    """

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData, view: View = TABLE) -> None:
        self._model, self._data = model, data
        self._renderers: dict[tuple[int, int], mujoco.Renderer] = {}
        self._fixed = mujoco.MjvCamera()
        self._fixed.type = mujoco.mjtCamera.mjCAMERA_FREE
        self._fixed.lookat[:] = view.look_at
        self._fixed.distance, self._fixed.azimuth, self._fixed.elevation = view.distance, view.azimuth, view.elevation
        self._wrist = mujoco.MjvCamera()
        self._wrist.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._wrist.fixedcamid = model.camera(WRIST_CAMERA).id
        self._groups = model.geom_group.copy()

    def render(self, camera: str, width: int, height: int, decorations: Sequence[Decoration] = ()) -> NDArray[np.uint8]:
        """Return one picture (height, width, 3) rgb; ``camera`` is ``image`` (fixed) or ``wrist_image``."""
        renderer = self._renderers.get((width, height))
        if renderer is None:
            self._model.vis.global_.offwidth = max(self._model.vis.global_.offwidth, width)
            self._model.vis.global_.offheight = max(self._model.vis.global_.offheight, height)
            renderer = self._renderers[width, height] = mujoco.Renderer(self._model, height, width)
        own = self._wrist if camera == "wrist_image" else self._fixed
        mujoco.mjv_updateCamera(self._model, self._data, own, renderer.scene)
        self._model.geom_group[~in_view(self._model, self._data, renderer.scene, width / height)] = HIDDEN
        renderer.update_scene(self._data, camera=own)
        self._model.geom_group[:] = self._groups
        for decoration in decorations:
            _draw(renderer.scene, decoration)
        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        return renderer.render().copy()

    def pixels(self, points: NDArray[np.floating], size: int) -> NDArray[np.float32]:
        """Return where points (N, 3), m, are in the fixed camera's image of ``size`` px: (N, 2), column and row."""
        scene = mujoco.MjvScene(self._model, 1)
        mujoco.mjv_updateCamera(self._model, self._data, self._fixed, scene)
        axes, eye, steep = camera_axes(scene)
        across, along, away = axes @ (np.asarray(points, np.float64) - eye).T
        columns, rows = across / (away * steep), along / (away * steep)  # -1 to 1 within the image
        return (size / 2 * (1.0 + np.stack([columns, -rows], 1))).astype(np.float32)

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


def in_view(model: mujoco.MjModel, data: mujoco.MjData, scene: mujoco.MjvScene, aspect: float) -> NDArray[np.bool_]:
    """Tell for every geom of the model (G,) whether its bounding sphere reaches into what the scene's camera sees.

    Args:
        model: its geoms; one without bounds, a plane, is always in view.
        data: where they are.
        scene: whose camera is up to date.
        aspect: width of the picture by its height.
    """
    left = scene.camera[0]
    axes, eye, steep = camera_axes(scene)
    across, along, away = axes @ (data.geom_xpos - eye).T
    radius = model.geom_rbound
    inside = away + radius > left.frustum_near
    for distance, slope in ((across, steep * aspect), (along, steep)):
        inside &= np.abs(distance) < away * slope + radius * np.hypot(1.0, slope)
    return np.asarray(inside | (radius == 0.0))


def camera_axes(scene: mujoco.MjvScene) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Return a scene's camera: its axes right, up, forward (3, 3), where it is (3,), m, and half its slope of view."""
    left, right = scene.camera  # of a stereo pair; a picture is taken from between them
    forward, up = left.forward.astype(np.float64), left.up.astype(np.float64)
    axes = np.stack([np.cross(forward, up), up, forward])
    steep = (left.frustum_top - left.frustum_bottom) / 2.0 / left.frustum_near
    return axes, (left.pos + right.pos) / 2.0, float(steep)


_SHAPES = {
    "ball": mujoco.mjtGeom.mjGEOM_SPHERE,
    "block": mujoco.mjtGeom.mjGEOM_BOX,
    "disc": mujoco.mjtGeom.mjGEOM_CYLINDER,
}


def _draw(scene: mujoco.MjvScene, decoration: Decoration) -> None:
    mujoco.mjv_initGeom(
        scene.geoms[scene.ngeom],
        _SHAPES[decoration.shape],
        _size(decoration),
        np.asarray(decoration.position, dtype=np.float64),
        np.eye(3).flatten(),
        np.array([*decoration.colour, 1.0], dtype=np.float32),
    )
    scene.ngeom += 1


def _size(decoration: Decoration) -> NDArray[np.float64]:
    """Return MuJoCo's sizes of a shape: a ball's radius, a block's half edges, a disc's radius and half height."""
    size = np.full(3, decoration.half_size)
    if decoration.shape == "disc":
        size[1] = DISC_HALF_HEIGHT
    return size
