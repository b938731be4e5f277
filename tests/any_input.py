"""What the property tests share: how long they search, and values of any kind."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st


def examples(count: int) -> settings:
    """``count`` examples with ``--run-slow``, without it a quarter of them: the share of the profile in use."""
    return settings(max_examples=max(count * settings().max_examples // 100, 5), deadline=None)


quick = examples(40)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
"""Anything that YAML or JSON can say."""
