"""Shapes that turn in 3-D: meshes as Plotly figures, coloured by component, by what was made up, or by the spread."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipelines.products.charts import CATEGORIES
from pipelines.products.solids import LEVEL, Mesh, mesh_of, palette

Figure = dict[str, Any]
STONE, ADDED = "#9aa7b5", "#d55e00"
_LIGHT = {"ambient": 0.55, "diffuse": 0.75, "specular": 0.15, "roughness": 0.7, "fresnel": 0.05}
_INK = "#1b2731"
_CIVIDIS = "Cividis"


def plain(probability: NDArray[np.floating], *, title: str, colour: str = STONE) -> Figure:
    """A shape [x, y, z] of one colour.

    Raises:
        ValueError: If nothing is solid.
    """
    return _scene(_trace(mesh_of(probability), color=colour), title)


def empty(title: str) -> Figure:
    """The cube with nothing in it."""
    return {**_scene({}, title), "data": []}


def by_component(
    probability: NDArray[np.floating],
    components: NDArray[np.integer],
    number: int,
    *,
    title: str,
    coloured: bool = True,
) -> Figure:
    """A shape [x, y, z], each triangle in the colour of the mixture's component that is most probable there.

    Raises:
        ValueError: If nothing is solid.
    """
    if not coloured:
        return plain(probability, title=title)
    mesh = mesh_of(probability, components)
    classes = component_of(mesh)[mesh.faces[:, 0]]
    return _scene(_classed(mesh, classes, [CATEGORIES[k % len(CATEGORIES)] for k in range(number)], "component"), title)


def by_origin(probability: NDArray[np.floating], seen: NDArray[np.bool_], *, title: str) -> Figure:
    """A completed shape: what was kept is grey, what the model added is orange.

    Raises:
        ValueError: If nothing is solid.
    """
    mesh = mesh_of(probability)
    added = _at(mesh, (~seen).astype(np.float32))[mesh.faces].mean(axis=1) > LEVEL
    return _scene(_classed(mesh, added.astype(np.int64), [STONE, ADDED], "", ("kept", "added")), title)


def by_spread(probability: NDArray[np.floating], spread: NDArray[np.floating], *, title: str) -> Figure:
    """The mean of several completions, coloured by the standard deviation of the probability among them.

    Raises:
        ValueError: If nothing is solid.
    """
    mesh = mesh_of(probability)
    bar = {"title": {"text": "standard deviation<br>of the probability (1)", "side": "right"}, "thickness": 14}
    painted = {
        "intensity": _at(mesh, spread).astype(np.float32),
        "colorscale": _CIVIDIS,
        "cmin": 0.0,
        "cmax": 0.5,
        "colorbar": bar,
    }
    return _scene(_trace(mesh, **painted), title)


def cut_plane(normal: NDArray[np.floating], offset: float) -> dict[str, Any]:
    """The square in which a plane of a unit normal, so far from the middle, cuts the cube; a trace of its own."""
    first = np.eye(3)[int(np.argmin(np.abs(normal)))]
    one = np.cross(normal, first)
    one /= np.linalg.norm(one)
    other = np.cross(normal, one)
    corners = [offset * normal + 1.15 * (a * one + b * other) for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    x, y, z = np.array(corners, np.float32).T
    faces = {"i": [0, 0], "j": [1, 2], "k": [2, 3]}
    return {"type": "mesh3d", "x": x, "y": y, "z": z, **faces, "color": "#0072B2", "opacity": 0.25, "hoverinfo": "skip"}


def with_plane(figure: Figure, normal: NDArray[np.floating], offset: float) -> Figure:
    """The same figure with a plane in it."""
    return {**figure, "data": [*figure["data"], cut_plane(normal, offset)]}


def component_of(mesh: Mesh) -> NDArray[np.int64]:
    """The component [V] of each vertex, whose colour tells it."""
    assert mesh.colours is not None
    return np.asarray((mesh.colours[:, None] == palette()[None]).all(axis=-1).argmax(axis=-1))


def _at(mesh: Mesh, grid: NDArray[np.floating]) -> NDArray[np.float32]:
    """Values of a grid [x, y, z] over the cube at the vertices."""
    index = (mesh.vertices + 1) / 2 * np.array(grid.shape) - 0.5
    found: NDArray[np.float32] = ndimage.map_coordinates(
        np.asarray(grid, np.float32), index.T, order=1, mode="nearest", output=np.float32
    )
    return found


def _trace(mesh: Mesh, **painted: Any) -> dict[str, Any]:  # noqa: ANN401 - Plotly's own keywords
    x, y, z = mesh.vertices.astype(np.float32).T
    i, j, k = mesh.faces.astype(np.uint32).T
    return {
        "type": "mesh3d",
        **{"x": x, "y": y, "z": z, "i": i, "j": j, "k": k},
        "lighting": _LIGHT,
        "lightposition": {"x": 2000, "y": -3000, "z": 4000},
        "hoverinfo": "skip",
        **painted,
    }


def _classed(
    mesh: Mesh, classes: NDArray[np.integer], colours: list[str], name: str, labels: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Triangles [F] of whole numbers, in as many plain colours."""
    count = len(colours)
    scale = [[(number + end) / count, colour] for number, colour in enumerate(colours) for end in (0, 1)]
    bar = {
        "title": {"text": name, "side": "right"},
        "tickvals": list(range(count)),
        "ticktext": list(labels) or [str(number + 1) for number in range(count)],
        "thickness": 14,
        "len": 0.6,
    }
    return _trace(
        mesh,
        intensity=classes.astype(np.float32),
        intensitymode="cell",
        colorscale=scale,
        cmin=-0.5,
        cmax=count - 0.5,
        colorbar=bar,
    )


def _scene(trace: dict[str, Any], title: str) -> Figure:
    axis = {"range": [-1.15, 1.15], "showbackground": False, "gridcolor": "#d8dfe1", "nticks": 5, "color": _INK}
    return {
        "data": [trace],
        "layout": {
            "title": {"text": title, "font": {"size": 15, "color": _INK}, "x": 0.02},
            "margin": {"l": 0, "r": 0, "t": 40, "b": 0},
            "uirevision": "kept",  # the camera stays where the user turned it
            "paper_bgcolor": "white",
            "font": {"color": _INK},
            "scene": {
                **{f"{name}axis": {**axis, "title": {"text": f"{name} (half edges)"}} for name in "xyz"},
                "aspectmode": "cube",
                "camera": {"eye": {"x": -1.1, "y": -1.25, "z": 0.6}, "center": {"x": 0, "y": 0, "z": -0.12}},
            },
        },
    }
