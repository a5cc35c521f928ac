"""Models as text, bound in one call."""

import numpy as np
import pytest

from bilevelpy.diagnostics import Source
from bilevelpy.errors import DataError
from bilevelpy.sema import check
from bilevelpy.sema.bind import bind

UPPER = "\nupper { var u in [0, 1]; minimize u^2; }"


@pytest.fixture
def program():
    def make(text, name="model.blv"):
        """A checked program; a text without an upper level gets a plain one."""
        text = text if "upper" in text else text + UPPER
        result = check(Source(name, text))
        errors = [d.message for d in result.diagnostics if d.severity == "error"]
        assert not errors, errors
        return result.program

    return make


@pytest.fixture
def bound(program):
    def run(text, data=None, **options):
        """The data of a model, bound."""
        return bind(program(text), data, **options).data

    return run


@pytest.fixture
def problems(program):
    def run(text, data=None, **options):
        """The diagnostics of a binding that fails."""
        with pytest.raises(DataError) as caught:
            bind(program(text), data, **options)
        return caught.value.diagnostics

    return run


@pytest.fixture
def array():
    def get(data, name):
        """A bound array, dense."""
        value = data.arrays[name]
        return np.asarray(value.toarray() if hasattr(value, "toarray") else value)

    return get
