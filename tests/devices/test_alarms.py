"""Calls come when they are due, in their order, and not once they are cancelled."""

import threading
import time

from ptychrome.devices.alarms import Alarms

DEADLINE_S = 20.0  # for what must happen; only a test that fails waits so long


def test_calls_come_in_the_order_of_their_times_and_not_before():
    alarms, called, over = Alarms(), [], threading.Event()
    begun = time.monotonic()
    alarms.call_later(0.05, lambda: called.append(("later", time.monotonic())))
    alarms.call_later(0.02, lambda: called.append(("sooner", time.monotonic())))
    alarms.call_later(0.06, over.set)
    assert over.wait(DEADLINE_S)
    assert [name for name, _ in called] == ["sooner", "later"]
    assert called[0][1] >= begun + 0.02
    assert called[1][1] >= begun + 0.05


def test_cancelled_call_does_not_come_and_failing_one_does_not_stop_the_others(caplog):
    alarms, called, over = Alarms(), [], threading.Event()
    alarms.call_later(0.01, lambda: called.append("cancelled")).cancel()
    alarms.call_later(0.02, lambda: 1 / 0)
    alarms.call_later(0.03, over.set)
    assert over.wait(DEADLINE_S)
    assert called == []
    assert "ZeroDivisionError" in caplog.text
