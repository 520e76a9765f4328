"""What a provider does for good: late lists, slow senders; and faults of one account."""

import pytest
import requests
from twilio.base.exceptions import TwilioRestException

from channels.sandbox import credentials as c
from channels.sandbox.config import Behaviour, Provider, SandboxConfig
from channels.sandbox.event_rules import Regimes
from channels.sandbox.faults import Fault, Faults
from channels.sandbox.outbox import Outbox
from channels.sandbox.twilio_errors import Refused
from channels.sandbox.twilio_progress import Progress
from tests.channels.sandbox.test_twilio import client_of
from tests.channels.sandbox.test_x import client_of as x_client_of

FROM = c.TWILIO_FROM
TO = "+12025550123"


def test_twilio_lists_late_but_knows_the_sid_at_once(sandbox, control):
    client = client_of(sandbox.url)
    control.options(twilio_list_lag=3600)
    sid = client.messages.create(to=TO, from_=FROM, body="x").sid
    assert client.messages(sid).fetch().status == "queued"
    assert client.messages.list(to=TO) == client.messages.list() == []
    control.options(twilio_list_lag=0)
    assert [message.sid for message in client.messages.list(to=TO)] == [sid]


def test_x_shows_its_timeline_late_but_the_post_at_once(sandbox, control):
    client = x_client_of(sandbox.url)
    control.options(x_list_lag=3600)
    post = client.create_tweet(text="x").data["id"]
    assert client.get_tweet(post, user_auth=True).data.text == "x"
    assert client.get_users_tweets(c.X_USER_ID, user_auth=True).data is None
    control.options(x_list_lag=0)
    assert [str(p.id) for p in client.get_users_tweets(c.X_USER_ID, user_auth=True).data] == [post]


def test_options_not_named_stay(control):
    control.options(twilio_list_lag=7)
    control.options(twilio_sender_rates={"*": 5})
    options = control.call("GET", "options").json()
    assert (options["twilio_list_lag"], options["twilio_sender_rates"]) == (7, {"*": 5})
    assert control.call("PUT", "options", json={"twilio_list_lag": -1}).status_code == 400
    assert control.call("PUT", "options", json={"typo": 1}).status_code == 400


class Queue:
    """A sender's queue on a clock of the test's."""

    def __init__(self, **rates: float) -> None:
        self.now = 1000.0
        self.behaviour = Behaviour(SandboxConfig())
        self.behaviour.twilio_sender_rates = {"*": None, **rates}
        self.outbox = Outbox(lambda: self.now)
        clock = self.outbox._clock
        self.progress = Progress(self.outbox, self.behaviour, Regimes(1), clock)

    def take(self, *, segments: int = 1, sender: str = "slow", validity: int = 36_000) -> int:
        turn = self.progress.turn(sender, segments)
        seq = self.outbox.add(Provider.TWILIO, TO, "x", ref="r", sender=sender)
        if turn is not None:
            self.progress.begin(seq, turn, validity=validity)
        return seq

    def word(self, seq: int) -> str:
        return self.progress.status(seq, self.now).word.decode()


def test_messages_above_the_rate_wait_queued_for_their_turn():
    queue = Queue(slow=0.1)
    first, second = queue.take(), queue.take()
    queue.now += 9.9
    assert (queue.word(first), queue.word(second)) == ("delivered", "queued")
    assert queue.progress.status(second, queue.now).sent is None
    queue.now += 1.2
    assert queue.word(second) == "sent"
    assert queue.progress.status(second, queue.now).sent == 1011.0
    queue.now += 2.0
    assert queue.word(second) == "delivered"


def test_rate_counts_segments_and_senders_apart():
    queue = Queue(slow=1.0, other=1.0)
    queue.take(segments=10)
    late, other, free = queue.take(), queue.take(sender="other"), queue.take(sender="free")
    queue.now += 9.0
    assert [queue.word(seq) for seq in (late, other, free)] == ["queued", "delivered", "delivered"]


def test_queue_drains_by_the_clock():
    queue = Queue(slow=1.0)
    for _ in range(10):
        queue.take()
    queue.now += 100.0
    assert queue.progress.begins(queue.take()) == queue.now


def test_full_queue_refuses():
    queue = Queue(slow=1.0)
    queue.behaviour.twilio_queue_limit = 10.0
    for _ in range(11):
        queue.take()
    with pytest.raises(Refused) as caught:
        queue.take()
    assert (caught.value.code, caught.value.status) == (21611, 429)
    queue.now += 1.0
    queue.take()


def test_message_expires_in_the_queue():
    queue = Queue(slow=0.1)
    queue.take()
    seq = queue.take(validity=5)
    assert (queue.word(seq), queue.progress.fate(seq)) == ("queued", "failed")
    queue.now += 5.0
    status = queue.progress.status(seq, queue.now)
    assert (status.word, status.sent, status.code) == (b"failed", None, 30036)
    assert [step.word for step in queue.progress.steps(seq)] == ["failed"]


def test_queued_over_the_wire(sandbox, control):
    control.options(twilio_sender_rates={FROM: 0.001}, twilio_queue_limit=1500, twilio_list_lag=0)
    client = client_of(sandbox.url)
    for _ in range(2):
        sid = client.messages.create(to=TO, from_=FROM, body="x", validity_period=36_000).sid
    with pytest.raises(TwilioRestException) as caught:
        client.messages.create(to=TO, from_=FROM, body="x")
    assert (caught.value.status, caught.value.code) == (429, 21611)
    message = client.messages.list(to=TO)[0]
    assert (message.sid, message.status, message.date_sent) == (sid, "queued", None)
    assert message.date_created is not None


# --- faults that came with them ----------------------------------------------------------


def create(sandbox, account: int = 1) -> requests.Response:
    sids = (c.TWILIO_ACCOUNT_SID, c.TWILIO_ACCOUNT_SID_2)
    tokens = (c.TWILIO_AUTH_TOKEN, c.TWILIO_AUTH_TOKEN_2)
    sid = sids[account - 1]
    return requests.post(
        f"{sandbox.url}/2010-04-01/Accounts/{sid}/Messages.json",
        data={"To": TO, "From": FROM, "Body": "x"},
        auth=(sid, tokens[account - 1]),
        timeout=10,
    )


def test_fault_of_one_account_leaves_the_other(sandbox, control):
    control.fault("twilio", status=503, account=1)
    assert (create(sandbox).status_code, create(sandbox, 2).status_code) == (503, 201)


def test_error_body_under_a_good_status(sandbox, control):
    control.fault("twilio", status=500, as_status=200, count=1)
    answer = create(sandbox)
    assert (answer.status_code, answer.json()["code"]) == (200, 20500)
    counts = control.counts("twilio")
    assert (counts["messages"], counts["errors"]) == (0, 1)
    assert create(sandbox).status_code == 201


def test_slow_answer_comes_whole(sandbox, control):
    control.fault("twilio", slow=0.1)
    answer = create(sandbox)
    assert (answer.status_code, answer.json()["status"]) == (201, "queued")
    assert control.counts("twilio")["errors"] == 0


def test_hang_with_an_end_is_reset_after_it(sandbox, control):
    control.fault("twilio", hang="after", delay=0.05)
    with pytest.raises(requests.ConnectionError):
        create(sandbox)
    assert control.counts("twilio")["messages"] == 1


def test_half_of_a_single_message_is_nothing(sandbox, control):
    control.fault("twilio", half=True)
    with pytest.raises(requests.ConnectionError):
        create(sandbox)
    assert control.counts("twilio")["messages"] == 0


def test_fault_ends_by_itself():
    now = 5.0
    faults = Faults(seed=1, clock=lambda: now)
    faults.add(Provider.TWILIO, Fault.model_validate({"status": 429, "for": 10}))

    def strikes() -> bool:
        return faults.next(Provider.TWILIO, is_send=True, addresses=list) is not None

    assert strikes()
    now += 9.9
    assert strikes()
    now += 0.1
    assert not strikes()


def test_duration_is_shown_by_the_name_it_was_given(control):
    control.fault("twilio", **{"status": 429, "for": 600})
    (rule,) = control.call("GET", "faults").json()
    assert rule["fault"] == {"status": 429, "for": 600.0}


@pytest.mark.parametrize(
    "fault",
    [
        {"as_status": 200},
        {"status": 500, "as_status": 404},
        {"half": True, "reset": "after"},
        {"slow": 1, "hang": "before"},
        {"status": 500, "for": 0},
        {"status": 500, "account": 3},
    ],
)
def test_senseless_faults_are_refused(control, fault):
    response = control.call("POST", "faults", json={"provider": "twilio", "fault": fault})
    assert response.status_code == 400
