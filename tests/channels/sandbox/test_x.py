"""X's simulator through tweepy, whose host is a literal: an adapter rewrites it."""

import pytest
import requests
import tweepy
from requests.adapters import HTTPAdapter

from channels.sandbox import credentials as c
from channels.sandbox.oauth1 import Secrets, signature


class Redirected(HTTPAdapter):
    """Sends what was signed for api.twitter.com to the sandbox."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url

    def send(self, request, **more):
        request.url = request.url.replace("https://api.twitter.com", self.url)
        return super().send(request, **(more | {"timeout": 10, "proxies": {}}))


def client_of(url: str, **changes: str | None) -> tweepy.Client:
    keys = {
        "consumer_key": c.X_CONSUMER_KEY,
        "consumer_secret": c.X_CONSUMER_SECRET,
        "access_token": c.X_ACCESS_TOKEN,
        "access_token_secret": c.X_ACCESS_TOKEN_SECRET,
    }
    client = tweepy.Client(**(keys | changes))
    client.session.mount("https://api.twitter.com", Redirected(url))
    return client


@pytest.fixture
def client(sandbox):
    return client_of(sandbox.url)


def test_signature_of_the_documented_example():
    secrets = Secrets(
        "xvz1evFS4wEEPTGEFPHBog",
        "kAcSOqF21Fu85e7zjz7ZN2U4ZRhfV3WpwPAoE3Z7kBw",
        "370773112-GmHxMAgYyLbNEtIKZeRNFsMKPR9EyMZeS9weJAEb",
        "LswwdoUaIvS8ltyTt5jkRh4J50vUPVVHtR2YPi5kE",
    )
    params = {
        "status": "Hello Ladies + Gentlemen, a signed OAuth request!",
        "include_entities": "true",
        "oauth_consumer_key": "xvz1evFS4wEEPTGEFPHBog",
        "oauth_nonce": "kYjzVBB8Y0ZFabxSWbWovY3uYSQ2pTgmZeNu2VS4cg",
        "oauth_signature_method": "HMAC-SHA1",
        "oauth_timestamp": "1318622958",
        "oauth_token": "370773112-GmHxMAgYyLbNEtIKZeRNFsMKPR9EyMZeS9weJAEb",
        "oauth_version": "1.0",
    }
    url = "https://api.twitter.com/1.1/statuses/update.json"
    assert signature("POST", url, params.items(), secrets) == "hCtSmYh+iHYCEqBWrE7C7hYmtUk="


def test_post_and_reply(client, control):
    first = client.create_tweet(text="Calls are down in Texas. #outage").data
    assert set(first) == {"id", "text", "edit_history_tweet_ids"}
    second = client.create_tweet(text="Restored.", in_reply_to_tweet_id=first["id"]).data
    assert int(second["id"]) > int(first["id"])
    texts = [entry["content"] for entry in control.outbox(address=c.X_USERNAME)]
    assert texts == [{"text": "Calls are down in Texas. #outage"}, {"text": "Restored."}]


def test_oauth2_user_token_posts_and_the_applications_does_not(sandbox):
    user = tweepy.Client(c.X_USER_TOKEN)
    user.session.mount("https://api.twitter.com", Redirected(sandbox.url))
    assert user.create_tweet(text="x", user_auth=False).data["id"]
    app = tweepy.Client(c.X_APP_TOKEN)
    app.session.mount("https://api.twitter.com", Redirected(sandbox.url))
    with pytest.raises(tweepy.Forbidden) as caught:
        app.create_tweet(text="y", user_auth=False)
    assert caught.value.response.json()["title"] == "Unsupported Authentication"


@pytest.mark.parametrize("key", ["consumer_key", "consumer_secret", "access_token_secret"])
def test_wrong_keys(sandbox, control, key):
    with pytest.raises(tweepy.Unauthorized):
        client_of(sandbox.url, **{key: "wrong"}).create_tweet(text="x")
    assert control.counts("x")["messages"] == 0


def test_a_signed_request_counts_once(sandbox, client):
    kept: list[requests.PreparedRequest] = []

    class Keeping(Redirected):
        def send(self, request, **more):
            kept.append(request.copy())
            return super().send(request, **more)

    client.session.mount("https://api.twitter.com", Keeping(sandbox.url))
    client.create_tweet(text="x")
    kept[0].url = kept[0].url.replace("https://api.twitter.com", sandbox.url)
    replayed = requests.Session().send(kept[0], timeout=10)
    assert replayed.status_code == 401


def test_duplicate_text(client):
    first = client.create_tweet(text="same").data["id"]
    with pytest.raises(tweepy.Forbidden) as caught:
        client.create_tweet(text="same")
    assert caught.value.response.json() == {
        "detail": "You are not allowed to create a Tweet with duplicate content.",
        "type": "about:blank",
        "title": "Forbidden",
        "status": 403,
    }
    assert client.delete_tweet(first).data == {"deleted": True}
    assert client.create_tweet(text="same").data["id"] != first


def test_weighted_length(client):
    assert client.create_tweet(text="a" * 280).data
    assert client.create_tweet(text="あ" * 140).data
    with pytest.raises(tweepy.BadRequest, match="too long"):
        client.create_tweet(text="a" * 281)
    with pytest.raises(tweepy.BadRequest, match="too long"):
        client.create_tweet(text="あ" * 141)


def test_reply_to_what_is_not_there(client):
    with pytest.raises(tweepy.Forbidden, match="deleted or not visible"):
        client.create_tweet(text="x", in_reply_to_tweet_id="12345")


def test_replies_can_be_refused(client, control):
    first = client.create_tweet(text="first").data["id"]
    assert control.call("POST", "options", json={"x_replies_refused": True}).status_code == 204
    with pytest.raises(tweepy.Forbidden, match="not been mentioned"):
        client.create_tweet(text="second", in_reply_to_tweet_id=first)
    assert client.create_tweet(text="second").data


def test_limit_of_the_window(start):
    sandbox, control = start(x_posts_per_window=2)
    client = client_of(sandbox.url)
    client.create_tweet(text="1")
    client.create_tweet(text="2")
    with pytest.raises(tweepy.TooManyRequests) as caught:
        client.create_tweet(text="3")
    assert caught.value.response.headers["x-rate-limit-remaining"] == "0"
    assert caught.value.reset_time > 0
    assert control.counts("x")["messages"] == 2


def test_the_account_reads_its_own_timeline(client, at_once):
    me = client.get_me(user_auth=True).data
    assert (str(me.id), me.username) == (c.X_USER_ID, c.X_USERNAME)
    assert client.get_users_tweets(me.id, user_auth=True).data is None
    ids = [client.create_tweet(text=f"post {n}").data["id"] for n in range(7)]
    page = client.get_users_tweets(
        me.id, max_results=5, tweet_fields=["created_at"], user_auth=True
    )
    assert [str(post.id) for post in page.data] == ids[:1:-1]
    assert page.data[0].created_at is not None
    rest = client.get_users_tweets(
        me.id, max_results=5, pagination_token=page.meta["next_token"], user_auth=True
    )
    assert [str(post.id) for post in rest.data] == ids[1::-1]
    newer = client.get_users_tweets(me.id, since_id=ids[4], user_auth=True)
    assert [str(post.id) for post in newer.data] == ids[:4:-1]


def test_body_against_the_schema(client):
    with pytest.raises(tweepy.BadRequest) as caught:
        client.create_tweet()
    assert caught.value.response.json()["title"] == "Invalid Request"
