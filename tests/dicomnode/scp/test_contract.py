"""What dicomnode.scp takes from inside pynetdicom. After an upgrade that fails here, read hooks.py and direct.py.

None of this is promised by pynetdicom; constraints.txt holds the version that these tests were written against.
"""

import inspect
import queue
import threading
from importlib.metadata import version
from pathlib import Path

import pytest
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider
from pynetdicom.fsm import TRANSITION_TABLE
from pynetdicom.pdu import A_ABORT_RQ, P_DATA_TF
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.presentation import build_context, negotiate_as_acceptor
from pynetdicom.sop_class import CTImageStorage, Verification
from pynetdicom.timer import Timer
from pynetdicom.transport import AssociationServer, AssociationSocket, RequestHandler, ThreadedAssociationServer

ROOT = Path(__file__).parents[3]


@pytest.fixture
def assoc() -> Association:
    return Association(AE("X"), "acceptor")


def parameters(function) -> list[str]:
    return list(inspect.signature(function).parameters)


def calls(function, *names: str) -> bool:
    """True where the source mentions these, in this order."""
    source, at = inspect.getsource(function), 0
    for name in names:
        at = source.find(name, at) + 1
        if not at:
            return False
    return True


def test_the_pinned_version_is_the_one_installed():
    pinned = next(
        line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("pynetdicom=")
    )
    assert pinned == f"pynetdicom=={version('pynetdicom')}"


def test_the_threads_meet_in_queues_that_can_be_replaced(assoc: Association):
    for owner, name in (
        (assoc.dul, "to_provider_queue"),
        (assoc.dul, "to_user_queue"),
        (assoc.dul, "event_queue"),
        (assoc.dul, "_recv_pdu"),
        (assoc.dimse, "msg_queue"),
    ):
        assert type(getattr(owner, name)) is queue.Queue, name
        assert name in vars(owner), f"{name} is no plain attribute"


def test_the_provider_asks_its_socket_and_reads_by_a_method_that_can_be_replaced():
    assert parameters(DULServiceProvider._read_pdu_data) == ["self"]
    assert calls(DULServiceProvider._is_transport_event, "Sta13", "self.socket.ready", "self._read_pdu_data()")
    assert calls(DULServiceProvider.run_reactor, "time.sleep(self._run_loop_delay)", "self._is_transport_event()")
    assert calls(
        DULServiceProvider.run_reactor, "_process_recv_primitive()", "_idle_timer.restart()", "event_queue.get"
    )
    assert parameters(DULServiceProvider._decode_pdu) == ["self", "bytestream"]


def test_the_provider_has_its_delay_its_timer_and_its_state(assoc: Association):
    assert vars(assoc.dul)["_run_loop_delay"] == 0.001
    assert isinstance(vars(assoc.dul)["_idle_timer"], Timer)
    assert assoc.dul.state_machine.current_state == "Sta1"
    assert vars(assoc.dul)["socket"] is None


def test_a_decoded_pdu_comes_with_its_event(assoc: Association):
    pdu, event = assoc.dul._decode_pdu(bytearray(b"\x07\0\0\0\0\4\0\0\0\0"))
    assert (type(pdu), event) == (A_ABORT_RQ, "Evt16")
    pdu, event = assoc.dul._decode_pdu(bytearray(b"\x04\0\0\0\0\7\0\0\0\3\1\3x"))
    assert (type(pdu), event) == (P_DATA_TF, "Evt10")


def test_the_states_and_events_mean_what_ps3_8_says():
    assert TRANSITION_TABLE[("Evt10", "Sta6")] == "DT-2"  # data transfer
    assert TRANSITION_TABLE[("Evt17", "Sta6")] == "AA-4"  # connection closed: A-P-ABORT to the user
    assert TRANSITION_TABLE[("Evt19", "Sta6")] == "AA-8"  # invalid PDU: A-ABORT to the peer
    assert TRANSITION_TABLE[("Evt17", "Sta13")] == "AR-5"


def test_the_socket_is_made_announced_and_closed_as_we_expect(assoc: Association):
    assert parameters(AssociationSocket.__init__) == ["self", "assoc", "client_socket", "address"]
    assert isinstance(inspect.getattr_static(AssociationSocket, "ready"), property)
    assert isinstance(inspect.getattr_static(AssociationSocket, "event_queue"), property)
    one = AssociationSocket(assoc, client_socket=object())
    assert assoc.dul.event_queue.get_nowait() == "Evt5"
    assert assoc.dul.event_queue.empty()
    assert one._is_connected
    assert calls(AssociationSocket.close, "_shutdown_socket()", "self.socket = None", "Evt17")


def test_the_association_passes_its_checkpoint_in_every_turn(assoc: Association):
    assert type(vars(assoc)["_reactor_checkpoint"]) is threading.Event
    loop = Association._run_reactor
    assert calls(
        loop, "while not self._kill", "self._is_paused = True", "_reactor_checkpoint.wait()", "get_msg(block=False)"
    )
    assert calls(loop, "is_release_requested()", "is_aborted()", "dul.is_alive()", "idle_timer_expired()")
    assert calls(Association.kill, "_reactor_checkpoint.set()", "self._kill = True", "stop_dul()")
    assert isinstance(vars(assoc)["_accepted_cx"], dict)


def test_a_message_of_another_service_can_be_handed_on_in_fragments(assoc: Association):
    assert parameters(type(assoc.dimse).receive_primitive) == ["self", "primitive"]
    echo = (
        b"\0\0\0\0\4\0\0\0\x38\0\0\0"
        b"\0\0\2\0\x12\0\0\x001.2.840.10008.1.1\0"
        b"\0\0\0\1\2\0\0\0\x30\0"
        b"\0\0\x10\1\2\0\0\0\1\0"
        b"\0\0\0\x08\2\0\0\0\1\1"
    )
    for control, content in ((1, echo[:20]), (3, echo[20:])):
        primitive = P_DATA()
        primitive.presentation_data_value_list = [[1, bytes([control]) + content]]
        assoc.dimse.receive_primitive(primitive)
    context_id, message = assoc.dimse.msg_queue.get_nowait()
    assert (context_id, message.MessageID) == (1, 1)


def test_the_end_of_the_connection_is_told_on_the_providers_thread():
    for action in ("AA_2", "AA_3", "AA_4", "AA_5", "AR_5"):
        from pynetdicom import fsm

        assert calls(getattr(fsm, action), "EVT_CONN_CLOSE"), action
    assert isinstance(evt.EVT_CONN_CLOSE, evt.NotificationEvent)


def test_the_server_can_be_given_a_socket_and_its_associations_prepared():
    assert "request_handler" in parameters(AssociationServer.__init__)
    assert "server_class" in parameters(AE.make_server)
    assert parameters(RequestHandler._create_association) == ["self"]
    assert calls(RequestHandler.handle, "self._create_association()", "assoc.start()")
    for name in ("server_bind", "server_activate", "server_close", "get_request"):
        assert callable(getattr(ThreadedAssociationServer, name))
    assert isinstance(inspect.getattr_static(AssociationServer, "active_associations"), property)
    assert calls(RequestHandler._create_association, "deepcopy(self.server.contexts)")


def test_negotiation_changes_none_of_the_contexts_that_associations_share():
    ours = [build_context(CTImageStorage), build_context(Verification)]
    before = [(cx.abstract_syntax, list(cx.transfer_syntax), cx.scu_role, cx.scp_role) for cx in ours]
    asked = [build_context(CTImageStorage, "1.2.840.10008.1.2.1"), build_context("1.2.3")]
    for n, cx in enumerate(asked):
        cx.context_id = 2 * n + 1
    contexts, _ = negotiate_as_acceptor(asked, ours, {CTImageStorage: (True, True)})
    assert [cx.result for cx in contexts] == [0, 3]
    assert [(cx.abstract_syntax, list(cx.transfer_syntax), cx.scu_role, cx.scp_role) for cx in ours] == before
    assert not any(cx is own for cx in contexts for own in ours)
