"""Failed asserts of the kit's own tests say what they compared, as those of any test do."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("agentguard.testing.conformance")
