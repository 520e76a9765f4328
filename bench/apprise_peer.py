"""Apprise, the common library for notifications, with its throttle off.

Two processes, each with one Apprise object that holds all its recipients. Its Twilio
plugin is pointed at the sink and is otherwise as it comes: one blocking call per message.
"""

from collections.abc import Callable, Sequence
from typing import Any

from bench import racing
from bench.sink import Sink, rate
from channels.sandbox import credentials

PROCESSES = 2


def _prepare(job: dict[str, Any]) -> Callable[[], None]:
    from apprise import Apprise
    from apprise.plugins.twilio import NotifyTwilio

    # There is no setting for it. A name that the class has not would leave the real one in use.
    if not NotifyTwilio.notify_sms_url.startswith("https://api.twilio.com/"):
        raise racing.Failed("this release of Apprise keeps Twilio's address elsewhere")
    NotifyTwilio.notify_sms_url = f"{job['url']}/2010-04-01/Accounts/{{sid}}/Messages.json"
    NotifyTwilio.request_rate_per_sec = 0
    account = f"{credentials.TWILIO_ACCOUNT_SID}:{credentials.TWILIO_AUTH_TOKEN}"
    numbers = "/".join(number.removeprefix("+") for number in job["addresses"])
    apprise = Apprise()
    if not apprise.add(f"twilio://{account}@{job['sender']}/{numbers}"):
        raise racing.Failed("Apprise does not take the address")

    def go() -> None:
        if not apprise.notify(body=job["text"]):
            raise racing.Failed("Apprise reports a failure")

    return go


def run(sink: Sink, addresses: Sequence[str], *, sender: str, text: str) -> float:
    """Messages per second, from the first arrival to the last."""
    sink.clear()
    jobs = [
        {
            "url": sink.url,
            "addresses": list(addresses[at::PROCESSES]),
            "sender": sender,
            "text": text,
        }
        for at in range(PROCESSES)
    ]
    racing.race("bench.apprise_peer", jobs, within=120)
    told = sink.report()
    assert told["messages"] == len(addresses), told
    return rate(told)


if __name__ == "__main__":
    racing.run(_prepare)
