"""What is added, and who hears of it."""

from serve_app.identity.principal import EVERYBODY, Principal
from serve_app.usage.meter import Counted, Meter


def test_followers_hear_of_each_amount() -> None:
    meter, heard = Meter(), []
    meter.follow(lambda *added: heard.append(added))
    meter.add(EVERYBODY, Counted.AUDIO, 1.5)
    meter.add(Principal("acme", "k1"), Counted.TOKENS, 20)
    assert heard == [
        (EVERYBODY, Counted.AUDIO, 1.5),
        (Principal("acme", "k1"), Counted.TOKENS, 20),
    ]
