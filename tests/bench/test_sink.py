"""The sink: it answers as the providers do, and what it counts is what came."""

import socket
import time
from urllib.parse import urlsplit

from bench.sink import Sink, rate

SMS = "/2010-04-01/Accounts/AC1/Messages.json"


def sms(taking: Sink, to: str, text: str) -> str:
    answer = taking.http.post(SMS, data={"From": "72345", "Body": text, "To": to})
    assert answer.status_code == 201
    sid: str = answer.json()["sid"]
    return sid


def test_each_sms_has_a_sid_of_its_own_and_a_second_copy_is_a_duplicate(taking: Sink) -> None:
    sids = {
        sms(taking, "+12025550111", "Hello"),
        sms(taking, "+12025550112", "Hello"),
        sms(taking, "+12025550111", "Something else"),
    }
    assert len(sids) == 3 and all(len(sid) == 34 and sid.startswith("SM") for sid in sids)
    assert taking.report()["duplicates"] == 0
    sms(taking, "+12025550111", "Hello")
    told = taking.report()
    assert (told["messages"], told["texts"], told["duplicates"]) == (4, 2, 1)
    assert taking.addresses() == {"+12025550111", "+12025550112"}


def test_a_mail_counts_for_each_person_in_it(taking: Sink) -> None:
    people = [{"to": [{"email": f"p{number}@mail.example.com"}]} for number in range(3)]
    mail = {"personalizations": people, "subject": "S", "content": []}
    answer = taking.http.post("/v3/mail/send", json=mail)
    assert answer.status_code == 202 and answer.headers["x-message-id"]
    told = taking.report()
    assert (told["requests"], told["messages"], told["duplicates"]) == (1, 3, 0)


def test_arrivals_are_on_the_clock_of_everybody_on_this_machine(taking: Sink) -> None:
    before = time.monotonic()
    taking.watch(["+12025550113"])
    sms(taking, "+12025550112", "Hello")
    between = time.monotonic()
    sms(taking, "+12025550113", "Hello")
    after = time.monotonic()
    first, second = taking.arrivals()
    assert before < first < between < second < after
    assert taking.first_after(before) == first and taking.first_after(between) == second
    assert taking.first_after(after) is None
    assert taking.watched() == [("+12025550113", second)]


def test_requests_may_come_in_pieces_and_several_at_once(taking: Sink) -> None:
    place = urlsplit(taking.url)
    body = b"To=%2B12025550111&From=72345&Body=Hi"
    request = b"POST %b HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (SMS.encode(), len(body), body)
    with socket.create_connection((place.hostname or "", place.port or 0)) as link:
        for byte in request:
            link.sendall(bytes([byte]))
        link.sendall(request * 2)
        answers = b""
        while answers.count(b"201 Created") < 3 or not answers.endswith(b"}"):
            answers += link.recv(65_536)
    assert taking.report()["messages"] == 3
    assert taking.sample() == request


def test_it_keeps_who_asks_to_be_called_back_only_if_told_to(taking: Sink) -> None:
    taking.http.post(
        SMS, data={"To": "+1", "Body": "a", "StatusCallback": "https://x.example/?a=b"}
    )
    taking.keep_callbacks()
    taking.http.post(
        SMS, data={"To": "+2", "Body": "a", "StatusCallback": "https://x.example/?a=b"}
    )
    ((_, address, url),) = taking.http.get("/_sink/callbacks").json()
    assert (address, url) == ("+2", "https://x.example/?a=b")


def test_a_rate_is_between_the_first_arrival_and_the_last() -> None:
    assert rate({"messages": 11, "first": 5.0, "last": 7.0}) == 5.0
