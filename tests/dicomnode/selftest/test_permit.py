"""dicomnode.selftest.permit: who may bring a virtual patient to a node that takes none, and where its maps may go."""

from dataclasses import replace
from datetime import timedelta

import pytest

from dicomnode import bookkeeping, config
from dicomnode.bookkeeping import Books, SelfTest
from dicomnode.config import ConfigError, Settings
from dicomnode.jobs import Lane, State
from dicomnode.selftest import permit
from dicomnode.spool import Spool
from tests.dicomnode.arrivals import only_series
from tests.dicomnode.deliveries import finished_job
from tests.dicomnode.test_bookkeeping import received

STUDY, OTHER = "1.1", "1.9"  # 1.1 is that of the shared helpers
ACTOR = "root at the command line"


@pytest.fixture
def caller(books: Books, now) -> str:
    """The AE title of a self-test that runs."""
    ae_title = permit.new_ae_title()
    test = SelfTest(STUDY, permit.digest(ae_title), "127.0.0.1", 4711, ())
    bookkeeping.open_selftest(books, test, now, ACTOR)
    return ae_title


def bring(books: Books, now, caller: str, study: str = STUDY) -> bookkeeping.OpenSeries:
    peer = bookkeeping.Peer("A1", caller, "127.0.0.1", now, Lane.ROUTINE)
    bookkeeping.note_instance(books, received(0, study_instance_uid=study), peer, now)
    return only_series(books)


def test_only_the_caller_of_a_running_selftest_is_admitted_and_only_from_this_machine(books, settings, now, caller):
    source = permit.source_of(books, settings, f"{caller} ", "127.0.0.1", now)
    assert source is not None and source.ae_title == caller and len(caller) == 16
    assert permit.source_of(books, settings, caller, "::ffff:127.0.0.1", now)
    assert permit.source_of(books, settings, caller, "192.0.2.10", now) is None
    assert permit.source_of(books, settings, permit.new_ae_title(), "127.0.0.1", now) is None
    assert permit.source_of(books, settings, "CT1", "127.0.0.1", now) is None


def test_what_is_over_admits_nobody(books, settings, now, caller):
    assert permit.source_of(books, settings, caller, "127.0.0.1", now + timedelta(minutes=16)) is None
    bookkeeping.close_selftest(books, STUDY, now, ACTOR)
    assert permit.source_of(books, settings, caller, "127.0.0.1", now) is None


def test_the_secret_itself_is_not_in_the_books(books, now, caller):
    (test,) = bookkeeping.open_selftests(books, now)
    assert caller not in repr(test)


def test_a_virtual_patient_is_taken_from_the_selftest_in_its_own_study_alone(books, settings, now, caller):
    assert not settings.node.accept_simulated
    own = bring(books, now, caller)
    assert permit.for_series(settings, books, own, now).node.accept_simulated
    assert permit.for_series(settings, books, replace(own, study_instance_uid=OTHER), now) is settings


def test_a_virtual_patient_of_a_listed_source_is_refused_even_in_that_study(books, settings, now, caller):
    assert permit.for_series(settings, books, bring(books, now, "CT1"), now) is settings


def test_the_maps_go_to_the_receiver_and_to_named_destinations_only(books, settings: Settings, now, caller):
    (own,) = permit.for_study(settings, books, STUDY, now).destination
    assert (own.host, own.port, own.confirm) == ("127.0.0.1", 4711, "status")
    assert permit.for_study(settings, books, OTHER, now) is settings
    assert permit.names(settings, books, now) == ["pacs", own.name]
    test = SelfTest(OTHER, "digest", "127.0.0.1", 4712, ("pacs", "nobody"))
    bookkeeping.open_selftest(books, test, now, ACTOR)
    assert [d.port for d in permit.for_study(settings, books, OTHER, now).destination] == [4712, 1]


@pytest.mark.parametrize("ends", ["closed", "late"])
def test_when_it_is_over_the_maps_go_nowhere_any_more(books, settings, now, caller, ends):
    if ends == "closed":
        bookkeeping.close_selftest(books, STUDY, now, ACTOR)
    later = now + timedelta(minutes=16 if ends == "late" else 0)
    assert permit.for_study(settings, books, STUDY, later).destination == ()
    assert permit.names(settings, books, later) == ["pacs"]


def test_an_operator_cannot_resend_it_to_a_pacs(books, spool: Spool, now, caller):
    job = finished_job(books, spool, now)
    assert bookkeeping.resend(books, job, [("pacs", frozenset({"sc"}))], now) == {}


def test_it_does_not_count_in_the_statistics(books, spool: Spool, now, caller):
    job = finished_job(books, spool, now, State.PROCESSING)
    bookkeeping.advance(books, job, bookkeeping.ACTOR, State.FAILED, "nobody listens", now)
    assert bookkeeping.failures(books, now - timedelta(days=1)) == []


def test_a_patient_does_count_in_the_statistics(books, spool: Spool, now):
    job = finished_job(books, spool, now, State.PROCESSING)
    bookkeeping.advance(books, job, bookkeeping.ACTOR, State.FAILED, "nobody listens", now)
    assert [n for *_, n in bookkeeping.failures(books, now - timedelta(days=1))] == [1]


def test_no_source_can_have_the_selftests_name(tmp_path):
    raw = {"source": [{"ae_title": "SELFTEST-ABCDEFG", "addresses": ["127.0.0.1"]}]}
    with pytest.raises(ConfigError, match="dicomnode selftest"):
        config.parse(raw, folder=tmp_path)
