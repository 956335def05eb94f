"""The seam through which a replica learns of its end, in the installed version of Ray."""

import inspect

from ray._private.worker import Worker
from ray.serve._private import replica

from serve_app.cluster import serve_shutdown


def test_ray_has_the_flag_and_sets_it_before_anything_else() -> None:
    """`tests/ray/test_drain.py` sees it work; this says what has changed when it does not."""
    body = inspect.getsource(replica.Replica._perform_graceful_shutdown).splitlines()[1:]
    assert body[0].strip() == "self._shutting_down = True"
    assert "_shutting_down" in inspect.getsource(replica.Replica._dataplane_health_check)
    assert "self.actors = {}" in inspect.getsource(Worker.__init__)
    assert "_replica_impl" in inspect.getsource(serve_shutdown.shutdown_sign)
