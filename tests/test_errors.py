"""The one error that users meet: the thing, what is wrong, the way out."""

import pytest

from paper_lib.config import Sweep, describe
from paper_lib.errors import unknown_name


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("strikt", "unknown protocol 'strikt', did you mean 'strict'?; choose from: kuratov2025, strict"),
        ("x", "unknown protocol 'x'; choose from: kuratov2025, strict"),
        (4, "unknown protocol 4; choose from: kuratov2025, strict"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(name, says):
    assert str(unknown_name("protocol", name, ["kuratov2025", "strict"])) == says


def test_an_unknown_key_is_answered_with_the_nearest():
    settings = {"name": "a", "model": {"name": "m"}, "texts": {"source": "strings", "texts": ["x"]}, "lenghts": [2]}
    with pytest.raises(ValueError, match="lenghts") as error:
        Sweep(**settings, lengths=[2])
    assert describe(error.value) == "unknown key lenghts, did you mean 'lengths'?; remove it or correct its spelling"
