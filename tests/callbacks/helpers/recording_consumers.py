"""Consumers for the other process of a `ProcessConsumer`, which finds them by the name of this module."""

import os
import threading
import time

from ptychrome.callbacks.progress import Status


class Recorder:
    """Writes what it is given into a file; does what a document tells it to do."""

    def __init__(self, path, report, on_status):
        self._path, self._report, self._on_status = path, report, on_status

    def __call__(self, name, doc):
        match name:
            case "raise":
                raise ValueError(doc["text"])
            case "exit":
                os._exit(doc["code"])
            case "block":
                threading.Event().wait()
            case "report":
                self._report(doc["text"])
            case "status":
                self._on_status(Status("uid", "P1", doc["done"], 40, 0, 0, 0, 0.0, 0.0, 0.0))
        with self._path.open("a") as file:
            file.write(f"{name} {os.getpid()}\n")

    def close(self):
        time.sleep(0.1)  # a parent that did not wait would not see it
        with self._path.open("a") as file:
            file.write("closed\n")


def build(path, report, on_status):
    return [lambda call: Recorder(path, report, on_status)]


def build_none(path, report, on_status):
    raise RuntimeError("cannot be built")
