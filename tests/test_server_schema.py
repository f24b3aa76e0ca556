"""Every route of the server against what it says of itself: whatever is sent, it answers, and never with a 5xx."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from files import LEFT, save_scan

pytest.importorskip("fastapi", reason="needs the extra `server`")
schemathesis = pytest.importorskip("schemathesis", reason="needs schemathesis")

from lesionlocator.server.run import open_room  # noqa: E402
from lesionlocator.server.settings import ServeSettings  # noqa: E402

TOKEN = "a-token-for-schemas"


@pytest.fixture(scope="module")
def schema(tmp_path_factory):
    folder = tmp_path_factory.mktemp("schema")
    (folder / "cases" / "smith").mkdir(parents=True)
    save_scan(folder / "cases" / "smith" / "scan.nii.gz", [LEFT], 3)
    app = open_room([folder / "cases"], folder / "state", ServeSettings(modality="CT", queue=4), token=TOKEN)
    headers = {"Authorization": f"Bearer {TOKEN}", "Host": "127.0.0.1"}
    # The demo fetches a scan from the package index; its job is tried elsewhere.
    found = schemathesis.openapi.from_asgi("/api/openapi.json", app, headers=headers)
    return found.exclude(path="/api/demo").exclude(path_regex="events$")


# Hypothesis compares the state of `random` around a draw; the server's own threads may use it meanwhile.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module:hypothesis.errors.HypothesisDeprecationWarning")
def test_no_request_breaks_the_server(schema):
    tried = 0
    for found in schema.get_all_operations():
        operation = found.ok()

        @settings(
            max_examples=4,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def answers(case):
            answer = case.call(headers={"Authorization": f"Bearer {TOKEN}", "Host": "127.0.0.1"})
            # 503 is an answer: the queue may be full, and the page may not have been built.
            assert answer.status_code < 500 or answer.status_code == 503, f"{case.method} {case.path}: {answer.text}"

        answers()
        tried += 1
    assert tried >= 25
