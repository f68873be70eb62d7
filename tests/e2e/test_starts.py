"""Starting sagas as docs/starting-sagas.md says, with the real grpcurl."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from uuid_utils import uuid7

from local.mesh import Mesh
from local.ports import Ports
from tests.e2e.grpcurl import Grpcurl
from tests.e2e.test_grpcurl import saga_input

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/starting-sagas.md"


def run(script: str, mesh: Mesh, grpcurl: Grpcurl) -> subprocess.CompletedProcess[str]:
    usual = Ports.model_fields["coordinator"].default
    address = mesh.address("coordinator")
    script = script.replace("grpcurl -plaintext", f"{grpcurl.binary} -plaintext")
    script = script.replace(f"127.0.0.1:{usual} ", f"{address} ")
    return subprocess.run(
        ["bash", "-eu", "-c", f"export SAGA_ADDRESS={address}\n{script}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=ROOT,
    )


@pytest.mark.parametrize("number", [0, 1])
def test_every_command_of_the_page_works_as_printed(
    mesh: Mesh, grpcurl: Grpcurl, number: int
) -> None:
    script = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)[number]
    said = run(script, mesh, grpcurl)
    assert said.returncode == 0, said.stderr
    assert "COMPLETED" in said.stdout


def test_a_call_that_waits_tells_how_the_saga_ended(grpcurl: Grpcurl) -> None:
    order_id = str(uuid7())
    declined = saga_input(order_id, payment_method="pm_card_chargeDeclined")
    request = {"saga_id": f"wait-{order_id}", "definition": "place-order", "wait": True}
    (answer,) = grpcurl.call("saga.v1.SagaService/StartSaga", {**request, "input": declined})
    assert answer["saga"]["state"] == "SAGA_STATE_COMPENSATED"
    assert answer["saga"]["failure"]["step"] == "charge_payment"


def test_a_stream_tells_each_start_each_end_and_each_refusal(mesh: Mesh, grpcurl: Grpcurl) -> None:
    ids = [f"many-{uuid7()}" for _ in range(3)]
    sagas = [
        {"saga_id": saga_id, "definition": "place-order", "wait": True, "input": given}
        for saga_id, given in zip(
            ids,
            [
                saga_input(str(uuid7())),
                saga_input(str(uuid7()), payment_method="pm_card_chargeDeclined"),
                {"@type": "type.googleapis.com/order.v1.GetOrderRequest"},
            ],
            strict=True,
        )
    ]
    messages = "\n".join(json.dumps({"sagas": [saga]}) for saga in sagas)
    script = f"grpcurl -plaintext -d @ {mesh.address('coordinator')} saga.v1.SagaService/StartSagas"
    said = run(f"{script} <<'END'\n{messages}\nEND", mesh, grpcurl)
    assert said.returncode == 0, said.stderr
    told = re.findall(r'"saga_id": "(.*?)",\s*"state": "SAGA_STATE_(.*?)"', said.stdout)
    assert {(saga_id, state) for saga_id, state in told} == {
        (ids[0], "RUNNING"),
        (ids[0], "COMPLETED"),
        (ids[1], "RUNNING"),
        (ids[1], "COMPENSATED"),
    }
    assert f'"saga_id": "{ids[2]}"' in said.stdout
    assert "INPUT_TYPE_MISMATCH" in said.stdout
