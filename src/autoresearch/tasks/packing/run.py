"""Packs both rectangles and writes the circles. Frozen."""

from pack import pack
from problem import get_rectangles, write

write([pack(width, height) for width, height in get_rectangles()])
