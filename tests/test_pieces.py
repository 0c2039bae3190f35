import json

import pytest

from companion import pieces


@pytest.mark.parametrize("name", ["depth"])
def test_a_piece_is_made_of_recorded_numbers(name, tmp_path):
    getattr(pieces, name)(tmp_path)
    assert json.loads((tmp_path / f"{name}.json").read_text("utf8"))
