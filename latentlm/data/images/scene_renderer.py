"""The pen of `Scenes`: shapes as signed distances, many pictures at once. Units are pixels of a 32 x 32 picture."""

import numpy as np

SIDE = 32
FURS = ("stripes", "bars", "checks", "plain")
STROKES = ("dark", "light", "dashed")
COLOURS = ((0.85, 0.2, 0.2), (0.85, 0.6, 0.1), (0.3, 0.7, 0.2), (0.1, 0.65, 0.7), (0.3, 0.35, 0.9), (0.75, 0.25, 0.7))
BODIES = ("circle", "square", "triangle", "diamond")
TOPS = ("ears", "antenna", "hat", "horns")
RELATIONS = ("left", "right", "inside")
GLYPHS = (("111", "001", "001"), ("010", "111", "010"), ("101", "010", "101"), ("110", "110", "001"))
MARBLES, DOTS = 8, 8  # places for marbles above; dots below
SLOTS = MARBLES + DOTS + 4

_Y, _X = np.meshgrid(np.arange(SIDE, dtype=np.float32) + 0.5, np.arange(SIDE, dtype=np.float32) + 0.5, indexing="ij")


def draw(factors: dict[str, np.ndarray], where: np.ndarray, blackboard: bool) -> np.ndarray:
    """Float32 ``[n 32 32 3]`` without noise; `where` ``[n SLOTS]`` are numbers in [0, 1) for what is no factor."""
    value = {name: values.astype(np.float32)[:, None, None] for name, values in factors.items() if name != "key"}
    canvas = np.empty((len(where), SIDE, SIDE, 3), np.float32)
    canvas[:] = 0.35 + value["ground"][..., None]
    _marbles(canvas[:, :6], factors["count"], where[:, :MARBLES])
    _animal(canvas, factors, value, where[:, -1, None, None])
    for dot_x, dot_y in _dots(factors["pile"], where[:, MARBLES:]):
        _disc(canvas[:, 25:], _X[25:] - dot_x[:, None, None], _Y[25:] - dot_y[:, None, None], 0.9, (0.2, 0.12, 0.08))
    if blackboard:
        canvas[:, 6:11, 27:32] = 0.12
        glyphs = np.array([[[float(bit) for bit in row] for row in glyph] for glyph in GLYPHS], np.float32)
        canvas[:, 7:10, 28:31] += 0.25 * glyphs[factors["chalk"]][..., None]
    return canvas * value["light"][..., None]


def _marbles(canvas: np.ndarray, count: np.ndarray, where: np.ndarray) -> None:
    there = where.argsort(1).argsort(1) < count[:, None]
    distance = np.hypot(_X[:6] % 4 - 2, _Y[:6] - 3)
    _over(
        canvas, np.array((0.9, 0.9, 0.4), np.float32), _ink(distance - 1.4) * there[:, None].repeat(SIDE // MARBLES, 2)
    )


def _animal(canvas: np.ndarray, factors: dict[str, np.ndarray], value: dict[str, np.ndarray], high: np.ndarray) -> None:
    kind = {name: factors[name][:, None, None] for name in ("fur", "stroke", "body", "top", "relation")}
    rows = slice(3, 25)  # it never reaches further
    canvas, x, y, r = canvas[:, rows], _X[rows] - value["x"], _Y[rows] - value["y"], value["scale"]
    fur = [_Y // 1 % 2, _X // 1 % 2, (_X // 2 + _Y // 2) % 2, np.full_like(_X, 0.5)]
    paint = np.asarray(COLOURS, np.float32)[factors["colour"]][:, None, None]
    shaded = paint * (1 - np.float32(0.45) * np.stack(fur)[factors["fur"]][:, rows])[..., None]
    _over(canvas, paint, _ink(np.choose(kind["top"], _tops(x, y, r))))
    body = np.choose(kind["body"], _bodies(x, y, r))
    _over(canvas, shaded, _ink(body))
    drawn = (kind["stroke"] != 2) | (np.sin(8 * np.arctan2(y, x)) > 0)
    light = np.where(kind["stroke"] == 1, np.float32(0.95), np.float32(0.05))
    _over(canvas, light[..., None], _ink(np.abs(body) - 0.6) * drawn)
    ball_x = x - np.choose(kind["relation"], [-r - 3.2, r + 3.2, 0 * r])
    ball_y = y - (high - 0.5) * np.where(kind["relation"] == 2, np.float32(0), np.float32(4))
    _disc(canvas, ball_x, ball_y, 1.7, (0.95, 0.95, 0.95))
    _disc(canvas, ball_x, ball_y, 0.9, (0.1, 0.1, 0.1))


def _bodies(x: np.ndarray, y: np.ndarray, r: np.ndarray) -> list[np.ndarray]:
    square = np.maximum(np.abs(x), np.abs(y)) - 0.87 * r
    triangle = np.maximum(y - 0.8 * r, 0.87 * np.abs(x) - 0.5 * (y + 1.05 * r))
    diamond = 0.71 * (np.abs(x) + np.abs(y) - 1.2 * r)
    return [np.hypot(x, y) - r, square, triangle, diamond]


def _tops(x: np.ndarray, y: np.ndarray, r: np.ndarray) -> list[np.ndarray]:
    up = y + r  # 0 at the upper edge of the body
    ears = np.hypot(np.abs(x) - 0.7 * r, up - 0.1 * r) - 0.38 * r
    antenna = np.minimum(np.maximum(np.abs(x) - 0.6, np.abs(up + 0.2 * r) - 0.5 * r), np.hypot(x, up + 0.75 * r) - 1.1)
    brim, crown = (
        np.maximum(np.abs(x) - 0.9 * r, np.abs(up) - 0.7),
        np.maximum(np.abs(x), np.abs(up + 0.35 * r)) - 0.4 * r,
    )
    hat = np.minimum(brim, crown)
    horns = np.maximum(np.abs(np.abs(x) - 0.5 * r - 0.5 * np.abs(up - 0.2 * r)) - 0.6, np.abs(up + 0.1 * r) - 0.6 * r)
    return [ears, antenna, hat, horns]


def _dots(pile: np.ndarray, where: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Centres of six dots: heaped up in three rows, or one here and one there along the ground."""
    middle = 4 + 24 * where[:, -2]
    heap = [(-2, 0), (0, 0), (2, 0), (-1, -1.8), (1, -1.8), (0, -3.6)]
    loose = np.sort(where[:, :DOTS].argsort(1)[:, :6], 1)
    dots = []
    for number, (dx, dy) in enumerate(heap):
        lone_x = 4.0 * loose[:, number] + 2 + 1.4 * (where[:, number] - 0.5)
        lone_y = 30.3 - 3.6 * (where[:, number] * 7 % 1)
        dots.append((np.where(pile, middle + dx, lone_x), np.where(pile, 30.3 + dy, lone_y)))
    return dots


def _ink(distance: np.ndarray) -> np.ndarray:
    """Share of a pixel that a shape covers, by the signed distance of its centre."""
    return (0.5 - distance).clip(0, 1).astype(np.float32)


def _disc(canvas: np.ndarray, x: np.ndarray, y: np.ndarray, radius: float, colour: tuple[float, ...]) -> None:
    _over(canvas, np.asarray(colour, np.float32), _ink(np.hypot(x, y) - np.float32(radius)))


def _over(canvas: np.ndarray, colour: np.ndarray, ink: np.ndarray) -> None:
    canvas += ink[..., None] * (colour - canvas)
