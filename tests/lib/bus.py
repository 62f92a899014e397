# SPDX-License-Identifier: MPL-2.0
"""A small actor for the bus (docs/bus.md), with pyzmq and msgpack: joins, asks, answers, sees events."""
import itertools
import secrets
import time

import msgpack
import zmq

REGISTER, REGISTERED, PING, PONG, WHO, UP, DOWN, LEAVE, BOUNCE, REPLY, METRICS = range(1, 12)


class Actor:
    """One DEALER. `events` keeps every item that is no answer: (src, op, item). Not for threads."""

    def __init__(self, endpoint, name, role, incarnation=None, register=True):
        self.name, self.role = name, role
        self.incarnation = incarnation or secrets.randbits(63) | 1
        self.rids = itertools.count(secrets.randbits(40) | 1)
        self.corrs = itertools.count(1)
        self.events, self.replies, self.peers = [], {}, {}
        self.is_registered, self.broker, self.lease_s, self.pinged = False, None, 3.0, 0.0
        self.sock = zmq.Context.instance().socket(zmq.DEALER)
        self.sock.setsockopt(zmq.ROUTING_ID, b"%s#%016x" % (name.encode(), self.incarnation))
        self.sock.setsockopt(zmq.LINGER, 200)
        self.sock.setsockopt(zmq.RECONNECT_IVL, 20)
        self.sock.connect(endpoint)
        if register:
            self.register()
            self.wait(lambda: self.is_registered, what="REGISTERED")

    def send(self, dst, op, items):
        header = msgpack.packb([1, op, next(self.corrs), 0, 0])
        self.sock.send_multipart([dst.encode(), header, msgpack.packb(items)])

    def register(self):
        self.send("broker", REGISTER, [[0, self.name, self.role, self.incarnation]])

    def poll(self, seconds=0.05):
        """Takes one envelope, if one comes in time."""
        if self.is_registered and time.monotonic() - self.pinged > self.lease_s / 3:
            self.pinged = time.monotonic()
            self.send("broker", PING, [[0, self.incarnation]])
        if not self.sock.poll(int(seconds * 1000)):
            return False
        src, header, body = self.sock.recv_multipart()
        op = msgpack.unpackb(header)[1]
        for item in msgpack.unpackb(body, strict_map_key=False):
            self.take(src.decode(), op, item)
        return True

    def take(self, src, op, item):
        if op == REPLY:
            self.replies[item[0]] = item[1:]
            return
        if src == "broker":
            if op == REGISTERED:
                self.is_registered, self.broker, self.lease_s = True, item[1], item[2] / 1000
                self.peers = {name: (role, inc) for name, role, inc in item[3]}
            elif op == UP:
                self.peers[item[1]] = (item[2], item[3])
            elif op == DOWN:
                self.peers.pop(item[1], None)
            elif op == WHO and self.is_registered:
                self.is_registered = False
                self.register()
        self.events.append((src, op, item))

    def wait(self, condition, seconds=5.0, what="a condition"):
        """Takes envelopes until condition() is true; its value."""
        end = time.monotonic() + seconds
        while True:
            value = condition()
            if value:
                return value
            if time.monotonic() > end:
                raise TimeoutError(f"{self.name}: no {what} in {seconds} s; events: {self.events[-5:]}")
            self.poll()

    def wait_event(self, op, match=lambda src, item: True, seconds=5.0):
        """The first event of this operation that matches, taken out of the list."""

        def find():
            for i, (src, o, item) in enumerate(self.events):
                if o == op and match(src, item):
                    return self.events.pop(i)
            return None

        return self.wait(find, seconds, f"event {op:#x}")

    def ask(self, dst, op, *fields):
        """Sends a request, gives its rid."""
        rid = next(self.rids)
        self.send(dst, op, [[rid, *fields]])
        return rid

    def request(self, dst, op, *fields, seconds=5.0):
        """Asks and waits: [err, fields…] or [err, detail]."""
        rid = self.ask(dst, op, *fields)
        self.wait(lambda: rid in self.replies, seconds, f"answer of {dst}")
        return self.replies.pop(rid)

    def answer(self, src, rid, err, *fields):
        self.send(src, REPLY, [[rid, err, *fields]])

    def leave(self):
        self.send("broker", LEAVE, [[0, self.incarnation]])
        self.close()

    def close(self):
        self.sock.close()
