"""Everything that the simulated providers tell by themselves.

Owns the couriers, the rules in force and which account tells what. It must not know what
an event says.
"""

from collections.abc import Callable, Sequence

from channels.sandbox import sendgrid_events, twilio_callbacks, twilio_progress
from channels.sandbox.config import Provider, SandboxConfig
from channels.sandbox.courier import Courier
from channels.sandbox.event_rules import Regimes
from channels.sandbox.orders import EventsOrder, SendgridInbound, TwilioInbound
from channels.sandbox.outbox import Outbox
from channels.sandbox.sendgrid_mail import SendgridMail
from channels.sandbox.twilio_messages import TwilioMessages

_ENDS = {
    Provider.TWILIO: (frozenset(twilio_progress.ENDS), frozenset[str]()),
    Provider.SENDGRID: (frozenset(sendgrid_events.ENDS), frozenset(sendgrid_events.BESIDES)),
}


class Events:
    """Rules and couriers by provider; `bind` gives it the accounts."""

    def __init__(
        self, config: SandboxConfig, outbox: Outbox, *, clock: Callable[[], float]
    ) -> None:
        self._outbox = outbox
        retries = {
            Provider.TWILIO: twilio_callbacks.retry,
            Provider.SENDGRID: sendgrid_events.retry,
        }
        self.couriers = {
            provider: Courier(clock=clock, exposed=config.exposed, retry=retry)
            for provider, retry in retries.items()
        }
        self.regimes = {provider: Regimes(config.seed) for provider in retries}
        self._twilio: Sequence[TwilioMessages] = ()
        self._sendgrid: Sequence[SendgridMail] = ()

    def bind(self, twilio: Sequence[TwilioMessages], sendgrid: Sequence[SendgridMail]) -> None:
        """The accounts, number 1 first."""
        self._twilio, self._sendgrid = twilio, sendgrid
        by_account = {t.account_number: t.progress.fate for t in twilio}
        mails = {m.account_number: m.events.fate for m in sendgrid}
        account = self._outbox.account
        self._outbox.fates[Provider.TWILIO] = lambda seq: by_account[account(seq)](seq)
        self._outbox.fates[Provider.SENDGRID] = lambda seq: mails[account(seq)](seq)

    def order(self, order: EventsOrder) -> None:
        rules = order.rules()
        ends, besides = _ENDS[order.provider]
        rules.require_outcomes(ends, besides)
        self.regimes[order.provider].change(rules, from_seq=self._outbox.next_seq)
        self.couriers[order.provider].follow(rules)

    def inbound(self, order: TwilioInbound | SendgridInbound) -> None:
        if isinstance(order, TwilioInbound):
            self._twilio[order.account - 1].inbound(order)
        else:
            self._sendgrid[order.account - 1].events.inbound(order)

    def reset(self, provider: Provider | None) -> None:
        for each, courier in self.couriers.items():
            if provider in (None, each):
                courier.clear()
                self.regimes[each].change(
                    self.regimes[each].default, from_seq=self._outbox.next_seq
                )
                courier.follow(self.regimes[each].current)

    def clear(self) -> None:
        """Forgets what is still to come and all counts; the rules stay."""
        for courier in self.couriers.values():
            courier.clear()

    def close(self) -> None:
        """Posts nothing more."""
        for courier in self.couriers.values():
            courier.close()

    def report(self) -> dict[str, object]:
        return {provider.value: self._report(provider) for provider in self.couriers}

    def _report(self, provider: Provider) -> dict[str, object]:
        courier = self.couriers[provider]
        counts = courier.counts
        all_answers = sum(counts.answered.values()) + sum(counts.forged_answered.values())
        report: dict[str, object] = {
            "rules": self.regimes[provider].current.model_dump(mode="json"),
            "pending": courier.pending,
            "sent": counts.sent,
            "lost": counts.lost,
            "forged": counts.forged,
            "repeated": counts.repeated,
            "retried": counts.retried,
            "barred": counts.barred,
            "unanswered": counts.unanswered,
            "answered": counts.answered,
            "forged_answered": counts.forged_answered,
            "slowest_ms": round(counts.slowest * 1000, 3),
            "mean_ms": round(counts.total * 1000 / max(all_answers, 1), 3),
            "events": counts.events,
        }
        if provider is Provider.TWILIO:
            report["opted_out_refused"] = sum(each.opted_out_refused for each in self._twilio)
        else:
            keys = {str(each.account_number): each.events.public_key for each in self._sendgrid}
            report["public_key"] = keys
        return report
