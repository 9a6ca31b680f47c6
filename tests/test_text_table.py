"""Tables for a terminal."""

from lerobot_vla_plugin.text_table import align


def test_the_first_column_is_to_the_left_and_nothing_trails():
    rows = [("", "long header", "b"), ("label", "1", "22"), ("a", "333", "")]
    assert align(rows) == ["         long header   b", "  label            1  22", "  a              333"]
