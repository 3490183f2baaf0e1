"""Carries Ethernet frames between two interfaces, late, and loses some.

usage: relay.py INTERFACE INTERFACE DELAY_MS LOSS SEED

It does what the kernel's netem does, where a kernel was built without. Frames travel with the header
of virtio (linux/virtio_net.h) in front of them, so that checksums and segmentation which a virtual
interface leaves to its driver stay as they are. Says "ready" when it listens; runs until it is killed.
"""

import collections
import random
import select
import socket
import sys
import time

SOL_PACKET = 263  # linux/socket.h
PACKET_VNET_HDR = 15  # linux/if_packet.h
PACKET_OUTGOING = 4
EVERY_PROTOCOL = 0x0003
LARGEST = 10 + 65_536 + 64  # header, a packet of IPv4 before segmentation, Ethernet
MOST_WAITING = 20_000


def listen(interface):
    both = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(EVERY_PROTOCOL))
    both.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    both.bind((interface, EVERY_PROTOCOL))
    both.setblocking(False)
    return both


def main():
    first, second, delay, loss, seed = sys.argv[1:]
    delay, loss = float(delay) / 1000, float(loss)
    dice = random.Random(int(seed))
    first, second = listen(first), listen(second)
    other = {first: second, second: first}
    waiting = collections.deque()  # (when, to, frame): the delay is the same for all, so in order
    print("ready", flush=True)
    while True:
        pause = max(0, waiting[0][0] - time.monotonic()) if waiting else None
        readable, _, _ = select.select([first, second], [], [], pause)
        for interface in readable:
            try:
                frame, (_, _, direction, *_) = interface.recvfrom(LARGEST)
            except BlockingIOError:
                continue
            lost = dice.random() < loss or len(waiting) >= MOST_WAITING
            if direction != PACKET_OUTGOING and not lost:
                waiting.append((time.monotonic() + delay, other[interface], frame))
        while waiting and waiting[0][0] <= time.monotonic():
            _, to, frame = waiting.popleft()
            try:
                to.send(frame)
            except BlockingIOError:
                pass  # a full queue loses frames, as a real one does


main()
