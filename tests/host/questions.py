"""Many questions to one process of the host, which takes its time to start.

@pytest.fixture
def answers(in_host, installation):
    return once(installation, in_host, ask_everything)

def ask_everything(host):                      # runs in the host's process
    return ask(host, QUESTIONS)

def test_something(answers):
    seen = answer(answers, a_question)
"""

import traceback

_asked = {}


def ask(host, questions):
    """What each function of the host says, by its name; a failed one says where it failed."""
    found = {}
    for question in questions:
        try:
            found[question.__name__] = {"said": question(host)}
        except Exception:  # told by `answer`, to the test that asked
            found[question.__name__] = {"failed": traceback.format_exc()}
    return found


def once(installation, in_host, function):
    """What `function` returned in this installation; it runs there once."""
    key = (installation.name, function.__code__.co_filename)
    if key not in _asked:
        _asked[key] = in_host(function, timeout=600.0)
    return _asked[key]


def answer(answers, question):
    """What a question was answered with."""
    found = answers[question.__name__]
    assert "failed" not in found, found["failed"]
    return found["said"]
