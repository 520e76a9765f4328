"""An adapter that prepares loads its SDK once, and asks nobody."""

import pytest
from pydantic import SecretStr

from channels.contract import Adapter, Preparing
from channels.sendgrid_email import SendgridEmail
from channels.twilio_sms import TwilioSms
from channels.wire import Request, Response


class Unasked:
    """A transport that nobody may use."""

    async def request(self, request: Request) -> Response:
        raise AssertionError("something was sent")


def adapters() -> list[Adapter]:
    twilio = TwilioSms.Settings(account_sid="AC" + "0" * 32, auth_token=SecretStr("0" * 32))
    sendgrid = SendgridEmail.Settings(
        api_key=SecretStr("SG.a.b"), from_email="service@northvale.example"
    )
    return [TwilioSms(twilio, Unasked()), SendgridEmail(sendgrid, Unasked())]


@pytest.mark.parametrize("adapter", adapters(), ids=lambda adapter: adapter.name)
async def test_preparing_sends_nothing_and_may_be_repeated(adapter: Adapter) -> None:
    assert isinstance(adapter, Preparing)
    await adapter.prepare()
    await adapter.prepare()
