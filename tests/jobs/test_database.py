"""What the database's errors become."""

import pytest
import sqlalchemy as sa

from serve_app.errors import ClientError
from serve_app.jobs.database import storage_errors


@pytest.mark.parametrize("error", [sa.exc.TimeoutError(), TimeoutError(), OSError()])
def test_a_database_that_has_no_connection_left_is_unavailable(error: Exception) -> None:
    with pytest.raises(ClientError) as refused, storage_errors("database"):
        raise error
    assert refused.value.code == "storage_unavailable"
