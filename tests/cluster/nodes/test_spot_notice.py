"""The notice that a spot instance will be taken away."""

import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from scaleinv_ray.cluster.driving.driver import Driver
from scaleinv_ray.cluster.nodes.spot_notice import taken_at
from scaleinv_ray.config.cluster import ClusterOptions
from scaleinv_ray.plan.jobs import ActorPlace, Jobs
from scaleinv_ray.store import Store

pytestmark = pytest.mark.ray


class Metadata(BaseHTTPRequestHandler):
    """What an instance of AWS is told about itself: at first that nothing is known."""

    notice: str | None = None
    status = 404

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, text: str | None) -> None:
        self.send_response(self.status if text is None else 200)
        self.end_headers()
        self.wfile.write((text or "").encode())

    def do_PUT(self) -> None:
        self.answer("token" if self.path == "/latest/api/token" else None)

    def do_GET(self) -> None:
        known = self.path == "/latest/meta-data/spot/instance-action"
        allowed = self.headers["X-aws-ec2-metadata-token"] == "token"
        self.answer(self.notice if known and allowed else None)


@pytest.fixture
def metadata() -> Iterator[tuple[str, type[Metadata]]]:
    """URL and answers of a metadata service."""
    handler = type("Handler", (Metadata,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", handler
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_instance_learns_when_it_goes(
    metadata: tuple[str, type[Metadata]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # which the service is not behind
    url, service = metadata
    assert taken_at(url) is None
    service.notice = json.dumps({"action": "terminate", "time": "2026-01-02T03:04:05Z"})
    assert taken_at(url) == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp()
    service.notice, service.status = None, 500
    with pytest.raises(OSError, match="500"):
        taken_at(url)


def test_a_node_with_notice_keeps_no_idle_actor_and_gets_no_measurement(
    ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    @ray.remote(num_cpus=0)
    class Idle:
        def node(self) -> str:
            return ray.get_runtime_context().get_node_id()

    actor = Idle.remote()
    node = ray.get(actor.node.remote())
    driver = Driver(Store(tmp_path), Jobs([], [], {}), ClusterOptions(), lambda *_, **__: None)
    crew = driver._crew
    crew._all, crew.idle = [actor], [actor]
    crew._places = {actor: ActorPlace(node=node, pid=0, address="127.0.0.1")}
    driver._look_at_nodes()
    assert crew.idle == [actor] and set(driver._nodes.cpus) == {node}
    monkeypatch.setattr(ray._private.state.state, "get_draining_nodes", lambda: {node: 0})
    driver._look_at_nodes()
    assert crew.idle == [] and len(crew) == 0 and driver._nodes.cpus == {}
    deadline = time.monotonic() + 60
    with pytest.raises(ray.exceptions.RayActorError):
        while time.monotonic() < deadline:  # its process may answer until it is gone
            ray.get(actor.node.remote())
